"""The command ``pxdbg``."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from pxdbg_runtime.command_line.campaign import campaign
from pxdbg_runtime.command_line.check import check
from pxdbg_runtime.command_line.console import log_to_terminal, stdout
from pxdbg_runtime.command_line.convert import convert
from pxdbg_runtime.command_line.doctor import doctor
from pxdbg_runtime.command_line.generate import generate
from pxdbg_runtime.command_line.merge import merge
from pxdbg_runtime.command_line.models import models
from pxdbg_runtime.command_line.overlay import overlay
from pxdbg_runtime.command_line.plot import plot
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.command_line.providers import providers
from pxdbg_runtime.command_line.replace_pxd import replace_pxd
from pxdbg_runtime.command_line.show import show
from pxdbg_runtime.command_line.validate import validate
from pxdbg_runtime.version import __version__

__all__ = ["app"]

app = Program("pxdbg", no_args_is_help=True, completes=True)

app.command(epilog="Example: pxdbg generate --model resnet --events 100 --seed 7 --output bg.parquet")(generate)
app.command(epilog="Example: pxdbg models")(models)
app.command(epilog="Example: pxdbg show bg.parquet")(show)
app.command(epilog="Example: pxdbg plot bg.parquet --output event.png")(plot)
app.command(epilog="Example: pxdbg overlay signal.parquet bg.parquet --output both.parquet")(overlay)
app.command(epilog="Example: pxdbg convert bg.parquet --output bg.root")(convert)
app.command(epilog="Example: pxdbg merge monday.parquet tuesday.parquet --output week.parquet")(merge)
app.command(epilog="Example: pxdbg doctor")(doctor)
app.command(epilog="Example: pxdbg providers")(providers)
app.command(epilog="Example: pxdbg check resnet")(check)
app.command(epilog="Example: pxdbg validate bg.parquet --reference simulation.parquet --report bg.html")(validate)
app.command(epilog="Example: pxdbg replace-pxd overlay.root --output new.root --model ieagan --seed 7")(replace_pxd)
app.add_typer(campaign, name="campaign")

_PANELS: Final = {
    "Events": ("generate", "overlay", "replace-pxd", "campaign"),
    "Models and files": ("models", "show", "plot", "convert", "merge", "validate"),
    "This machine": ("doctor", "providers", "check"),
}
"""The commands by what they work on, for the help text; others are listed without a group."""
app.group(_PANELS)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        stdout.print(f"pxdbg-runtime {__version__}")
        raise typer.Exit


@app.callback(
    epilog=(
        "Whether this machine can do it: pxdbg doctor\n\nA first event: pxdbg generate --output bg.parquet\n\n"
        "Its occupancies: pxdbg show bg.parquet\n\nIts picture: pxdbg plot bg.parquet --output event.png"
    )
)
def pxdbg(
    version: Annotated[  # noqa: ARG001  # its callback prints it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Generate beam background of the Belle II pixel detector (PXD), without PyTorch.

    A model is an ONNX graph with a model card inside. An event has the hits of
    forty sensors of 250 x 768 pixels. A digit is one hit: sensor, u cell,
    v cell and charge in ADU.
    """
    log_to_terminal()
