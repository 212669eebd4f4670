"""``pxdbg merge``: write the digits of several files to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pxdbg_runtime.command_line.console import report_failures
from pxdbg_runtime.command_line.convert import copy_events
from pxdbg_runtime.command_line.digit_output import ExperimentNumber, FormatName, Overwrite, RunNumber
from pxdbg_runtime.formats import SUFFIX_LIST
from pxdbg_runtime.formats.run_numbers import choose_run_numbers

__all__ = ["merge"]


def merge(
    files: Annotated[list[Path], typer.Argument(help=f"Digit files to read, {SUFFIX_LIST}, of any formats.")],
    output: Annotated[Path, typer.Option(help=f"File to write, {SUFFIX_LIST}.")],
    overwrite: Overwrite = False,
    format_name: FormatName = None,
    experiment: ExperimentNumber = None,
    run: RunNumber = None,
) -> None:
    """Write the digits of several files to one.

    The files must be of one graph, threshold and choice of sensors, and have
    different event numbers. The events are ordered by their number, and the
    provenance of all jobs is kept. The file appears when it is complete.
    """
    with report_failures():
        run_numbers = choose_run_numbers(format_name, experiment, run)
        copy_events(files, output, format_name, run_numbers, overwrite=overwrite)
