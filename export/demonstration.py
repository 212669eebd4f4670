"""``python -m export.demonstration --model resnet --seed 3 --output resnet.safetensors``: a checkpoint of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.__main__ import Family
from export.packages import require_packages
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target


def main(
    model: Annotated[Family, typer.Option(help="Architecture.")],
    output: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    seed: Annotated[int, typer.Option(help="Seed of the weights.")] = 3,
) -> None:
    """Write a checkpoint of random weights: for demonstrations and tests, without physics."""
    with report_failures():
        check_target(output)
        require_packages("python -m export.demonstration")
        from safetensors.torch import save

        from export.random_weights import build_random_model

        state = build_random_model(model.value, seed).state_dict()
        with atomic_write(output) as partial:
            partial.write_bytes(save(state))
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app = Program(name="python -m export.demonstration", add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
