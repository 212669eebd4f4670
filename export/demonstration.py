"""``python -m export.demonstration --family resnet --output x.safetensors``: write random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.family_option import FamilyOption
from export.packages import require_packages
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.digit_output import Overwrite, check_new_file
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.formats.atomic_write import atomic_write


def main(
    family: FamilyOption,
    output: Annotated[Path, typer.Option(help="Checkpoint to write, .safetensors.")],
    overwrite: Overwrite = False,
    seed: Annotated[int, typer.Option(help="Seed of the weights: any signed 64-bit integer.")] = 3,
) -> None:
    """Write a checkpoint of random weights: for demonstrations and tests, without any physics."""
    with report_failures():
        check_new_file(output, overwrite=overwrite)
        require_packages("python -m export.demonstration")
        from safetensors.torch import save

        from export.checkpoint.nature_mark import build_mark
        from export.random_weights import build_random_model

        state = build_random_model(family, seed).state_dict()
        with atomic_write(output) as partial:
            partial.write_bytes(save(state, metadata=build_mark("demonstration")))
        stdout.print(f"wrote {output}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    app = Program("python -m export.demonstration")
    app.command()(main)
    app()
