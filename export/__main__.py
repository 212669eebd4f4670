"""``python -m export``: a checkpoint becomes a graph that pxdbg_runtime runs; ``python -m export payload``: and a payload."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export import payload
from export.original import ORIGINAL_MIN_CHARGE
from export.packages import require_packages
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Sequence

app = Program(name="python -m export", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class Family(StrEnum):
    """The generators that can be exported."""

    CONVNET = "convnet"
    RESNET = "resnet"


class NatureChoice(StrEnum):
    """What weights are worth."""

    CHECKPOINT = "checkpoint"
    STAND_IN = "stand-in"
    DEMONSTRATION = "demonstration"


class PrecisionChoice(StrEnum):
    """Precisions of a graph."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class TargetChoice(StrEnum):
    """Execution providers that a graph's form can be chosen for."""

    CPU = "cpu"
    CUDA = "cuda"


@app.command(
    epilog="Example: python -m export generator.pt --model resnet --output graphs --name resnet-2026\n\n"
    "Graphs become payloads of the conditions database with: python -m export payload DIR\n\n"
    "Needs PyTorch and onnx: pip install 'pxdbg-runtime\\[export]'",
)
def export(
    model: Annotated[Family, typer.Option(help="Architecture of the checkpoint.")],
    output: Annotated[Path, typer.Option(help="Folder to write the graph to.")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="Checkpoint: .pt, .pth or .safetensors; or --from-conditions.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(show_default="that of the checkpoint file", help="Name of the model.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Which state dict to take if several fit, such as g_ema or ema.shadow."),
    ] = None,
    provenance: Annotated[
        str | None, typer.Option(help="Where the weights come from, in words, for the model card.")
    ] = None,
    nature: Annotated[
        NatureChoice, typer.Option(help="What the weights are worth, for the model card.")
    ] = NatureChoice.CHECKPOINT,
    precision: Annotated[
        PrecisionChoice,
        typer.Option(help="float32 is exact; int8 is for CPUs, float16 for GPUs, both judged against float32."),
    ] = PrecisionChoice.FLOAT32,
    target: Annotated[
        TargetChoice | None,
        typer.Option(show_default="cpu, for float16 cuda", help="Execution provider to choose the graph's form for."),
    ] = None,
    weight_bits: Annotated[
        int,
        typer.Option(min=7, max=8, help="int8: 7 gives the same digits on every CPU, 8 only where there is VNNI."),
    ] = 7,
    min_charge: Annotated[
        int, typer.Option(min=1, max=255, help="Smallest charge of a hit, ADU; the original has no read-out threshold.")
    ] = ORIGINAL_MIN_CHARGE,
    from_conditions: Annotated[
        str | None,
        typer.Option(metavar="GLOBALTAG", help="Take the checkpoint from this global tag of the conditions database."),
    ] = None,
    experiment: Annotated[
        int | None, typer.Option(show_default="0", help="Experiment that the checkpoint shall be valid for.")
    ] = None,
    run: Annotated[int | None, typer.Option(show_default="0", help="Run that it shall be valid for.")] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            show_default="those of BELLE2_CONDB_METADATA",
            help="Server of the conditions database; give it again for one to ask if the first fails.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="basf2's", help="Folder where downloaded payloads are kept."),
    ] = None,
    accept_beyond_bounds: Annotated[
        bool, typer.Option("--accept-beyond-bounds", help="Write a graph whose digits are too far from float32's.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print what each pass over the graph does, and what it saves.")
    ] = False,
) -> None:
    """Turn a trained PyTorch generator into one ONNX file that describes itself.

    The graph is checked with onnx and compared with PyTorch before it is written: a float32 graph that is more than twice as
    far from float64 as PyTorch's own float32 (at least 5e-6, at most 1e-3) is refused. An int8 or float16 graph is compared with float32 over 20 events: it is
    refused if W1 of the charge spectrum reaches 0.3 ADU or the occupancy differs by more than 1 %.
    """
    with report_failures():
        require_packages("python -m export")
        from export.pipeline import export_checkpoint

        conditions = _Conditions(from_conditions, experiment, run, tuple(server or ()), cache)
        path, where_from = _source(checkpoint, provenance, conditions, model.value)
        graph = export_checkpoint(
            path,
            model.value,
            output,
            name=name,
            wrapper=weights,
            nature=nature.value,
            provenance=where_from,
            precision=precision.value,
            target=(target or _usual_target(precision)).value,
            weight_bits=8 if weight_bits == 8 else 7,
            min_charge=min_charge,
            accept_beyond_bounds=accept_beyond_bounds,
            explain=explain,
            log=_say,
        )
        _say(f"wrote {graph.path}: {graph.size / 1e6:.1f} MB, SHA-256 {graph.sha256}")


@dataclass(frozen=True)
class _Conditions:
    """What was said of the conditions database."""

    global_tag: str | None
    experiment: int | None
    run: int | None
    servers: tuple[str, ...]
    cache: Path | None


def _source(
    checkpoint: Path | None, provenance: str | None, conditions: _Conditions, family: str
) -> tuple[Path, str | None]:
    """Give the path of the checkpoint, fetched if need be, and where its weights come from, in words."""
    if checkpoint is not None and conditions == _Conditions(None, None, None, (), None):
        return checkpoint, provenance
    if checkpoint is not None and conditions.global_tag is None:
        message = "--experiment, --run, --server and --cache are for --from-conditions, not for a checkpoint file."
        raise ArgumentValueError("from_conditions", message)
    if checkpoint is not None or conditions.global_tag is None:
        message = "Give a checkpoint file or --from-conditions GLOBALTAG: exactly one of the two."
        raise ArgumentValueError("checkpoint", message)
    require("httpx", extra="export", purpose="--from-conditions")
    from export.conditions.command import fetch_checkpoint

    fetched = fetch_checkpoint(
        conditions.global_tag,
        family,
        experiment=conditions.experiment or 0,
        run=conditions.run or 0,
        servers=conditions.servers,
        cache=conditions.cache,
        log=_say,
    )
    return fetched.path, " ".join(filter(None, (provenance, fetched.provenance)))


def _usual_target(precision: PrecisionChoice) -> TargetChoice:
    return TargetChoice.CUDA if precision is PrecisionChoice.FLOAT16 else TargetChoice.CPU


def _say(line: str) -> None:
    stdout.print(line, markup=False, soft_wrap=True)


def main(arguments: Sequence[str]) -> None:
    """Run the export, or lay out payloads if the first argument says so: a checkpoint of that name is ./payload."""
    if arguments[:1] == ["payload"]:
        payload.app(arguments[1:], prog_name="python -m export payload")
    else:
        app(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
