"""``python -m export``: export a checkpoint to a graph; ``python -m export payload``: turn graphs into payloads."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export import payload
from export.family_option import FamilyOption
from export.packages import require_packages
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.digit_output import Overwrite
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.model.card import N_THRESHOLDS, Nature, Precision, Target
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

app = Program("python -m export")


@app.command(
    epilog="Example: python -m export generator.pt --family resnet --output graphs --name resnet-2026\n\n"
    "Make payloads of the conditions database from graphs: python -m export payload DIR\n\n"
    "Needs PyTorch and onnx: pip install 'pxdbg-runtime\\[export]'"
)
def export(
    family: FamilyOption,
    output: Annotated[Path, typer.Option(help="Folder to write the graph to.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint: .pt, .pth or .safetensors; or --from-conditions.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(show_default="that of the checkpoint file", help="Name of the model.")
    ] = None,
    state_key: Annotated[
        str | None, typer.Option(metavar="PATH", help="State dict to take if several fit, such as g_ema or ema.shadow.")
    ] = None,
    provenance: Annotated[str | None, typer.Option(help="Origin of the weights, in words, for the model card.")] = None,
    nature: Annotated[Nature, typer.Option(help="Kind of the weights, for the model card.")] = "checkpoint",
    precision: Annotated[
        Precision,
        typer.Option(help="float32 is exact; int8 is for CPUs, float16 for GPUs, both compared with float32."),
    ] = "float32",
    target: Annotated[
        Target | None,
        typer.Option(show_default="cpu, for float16 cuda", help="Execution provider to optimise the graph for."),
    ] = None,
    weight_bits: Annotated[
        int, typer.Option(min=7, max=8, help="int8: 7 gives the same digits on every CPU, 8 only on CPUs with VNNI.")
    ] = 7,
    min_charge: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=N_THRESHOLDS,
            show_default="the family's, as in the original: 1 or 6",
            help="Smallest charge of a hit, ADU.",
        ),
    ] = None,
    from_conditions: Annotated[
        str | None,
        typer.Option(metavar="GLOBALTAG", help="Take the checkpoint from this global tag of the conditions database."),
    ] = None,
    experiment: Annotated[
        int | None, typer.Option(show_default="0", help="Experiment for which the checkpoint must be valid.")
    ] = None,
    run: Annotated[int | None, typer.Option(show_default="0", help="Run for which it must be valid.")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            show_default="those of basf2",
            help="Conditions database: URL of a server, or sqlite file. Repeat the option for others to try next.",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="basf2's", help="Folder of downloaded payloads.")
    ] = None,
    allow_open_tag: Annotated[
        bool, typer.Option("--allow-open-tag", help="Accept a global tag in the state OPEN, which may still change.")
    ] = False,
    accept_beyond_bounds: Annotated[
        bool,
        typer.Option("--accept-beyond-bounds", help="Write the graph even if its digits are too far from float32's."),
    ] = False,
    overwrite: Overwrite = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the changes and savings of each pass over the graph.")
    ] = False,
) -> None:
    """Export a trained PyTorch generator to one self-describing ONNX file.

    onnx checks the graph, and its images are compared with PyTorch's. A float32
    graph is refused if it does not compute the model: evaluated in float64, its
    images may differ from the model's by 1.5 times the rounding of PyTorch's
    float32. It is also refused if ONNX Runtime's rounding is more than twice both
    PyTorch's and that of the unchanged graph. An int8 or float16 graph is compared with float32
    over 20 events. It is refused if W1 of the charge
    spectrum reaches 0.3 ADU or the occupancy differs by more than 1 %.
    """
    with report_failures():
        require_packages("python -m export")
        from export.pipeline import ExportOptions, export_checkpoint, prepare_folder

        conditions = _Conditions(from_conditions, experiment, run, tuple(server or ()), cache, allow_open_tag)
        options = ExportOptions(
            name=name,
            state_key=state_key,
            nature=nature,
            precision=precision,
            target=target or ("cuda" if precision == "float16" else "cpu"),
            weight_bits=8 if weight_bits == 8 else 7,
            min_charge=min_charge,
            accept_beyond_bounds=accept_beyond_bounds,
            overwrite=overwrite,
            explain=explain,
        )
        # Before a download, which may take half an hour.
        with prepare_folder(output), _find_source(checkpoint, provenance, conditions, family) as (path, origin):
            graph = export_checkpoint(path, family, output, replace(options, provenance=origin), log=_print_line)
        _print_line(f"wrote {graph.path}: {graph.size / 1e6:.1f} MB, SHA-256 {graph.sha256}")


@dataclass(frozen=True)
class _Conditions:
    """Options of the conditions database."""

    global_tag: str | None
    experiment: int | None
    run: int | None
    sources: tuple[str, ...]
    cache: Path | None
    allow_open_tag: bool


@contextmanager
def _find_source(
    checkpoint: Path | None, provenance: str | None, conditions: _Conditions, family: str
) -> Iterator[tuple[Path, str | None]]:
    """Yield the path of the checkpoint, downloaded if need be, and the origin of its weights."""
    if checkpoint is not None and conditions == _Conditions(None, None, None, (), None, False):
        yield checkpoint, provenance
        return
    if checkpoint is not None and conditions.global_tag is None:
        message = (
            "--experiment, --run, --server, --cache and --allow-open-tag are for --from-conditions, not for a "
            "checkpoint file."
        )
        raise ArgumentValueError("from_conditions", message)
    if checkpoint is not None or conditions.global_tag is None:
        message = "Give a checkpoint file or --from-conditions GLOBALTAG: exactly one of the two."
        raise ArgumentValueError("checkpoint", message)
    require("httpx", extra="export", purpose="--from-conditions")
    from export.conditions.command import fetch_checkpoint
    from export.conditions.files import copy_privately

    fetched = fetch_checkpoint(
        conditions.global_tag,
        family,
        experiment=conditions.experiment or 0,
        run=conditions.run or 0,
        sources=conditions.sources,
        cache=conditions.cache,
        allow_open_tag=conditions.allow_open_tag,
        log=_print_line,
    )
    with copy_privately(fetched.path, fetched.entry) as copy:
        yield copy, " ".join(filter(None, (provenance, fetched.provenance)))


def _print_line(line: str) -> None:
    stdout.print(line, markup=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> None:
    """Run the export, or ``payload`` if that is the first argument; give a checkpoint of that name as ./payload."""
    if arguments[:1] == ["payload"]:
        payload.app(arguments[1:], prog_name="python -m export payload")
    else:
        app(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
