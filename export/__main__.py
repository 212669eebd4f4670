"""``python -m export``: a checkpoint becomes a graph that pxdbg_runtime runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from export.pipeline import export_checkpoint
from pxdbg_runtime.command_line.console import failures_reported, stdout

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


class Family(StrEnum):
    """The generators that can be exported."""

    CONVNET = "convnet"
    RESNET = "resnet"


class NatureChoice(StrEnum):
    """What weights are worth."""

    CHECKPOINT = "checkpoint"
    STAND_IN = "stand-in"
    DEMONSTRATION = "demonstration"


@app.command(
    epilog="Example: python -m export generator.pt --model resnet --output graphs --name resnet-2026",
)
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint: .pt, .pth or .safetensors.")],
    model: Annotated[Family, typer.Option(help="Architecture of the checkpoint.")],
    output: Annotated[Path, typer.Option(help="Folder to write the graph to.")],
    name: Annotated[
        str | None, typer.Option(show_default="that of the checkpoint file", help="Name of the model.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Which state dict to take, if the checkpoint holds several.")
    ] = None,
    provenance: Annotated[
        str | None, typer.Option(help="Where the weights come from, in words, for the model card.")
    ] = None,
    nature: Annotated[
        NatureChoice, typer.Option(help="What the weights are worth, for the model card.")
    ] = NatureChoice.CHECKPOINT,
) -> None:
    """Turn a trained PyTorch generator into one ONNX file that describes itself.

    The graph is checked with onnx and compared with PyTorch on fresh latents before it is written; one that
    differs by more than 1e-5 is refused.
    """
    with failures_reported():
        graph = export_checkpoint(
            checkpoint,
            model.value,
            output,
            name=name,
            wrapper=weights,
            nature=nature.value,
            provenance=provenance,
            tell=_say,
        )
        _say(f"wrote {graph.path}: {graph.size / 1e6:.1f} MB, SHA-256 {graph.sha256}")


def _say(line: str) -> None:
    stdout.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    app()
