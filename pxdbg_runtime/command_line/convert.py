"""``pxdbg convert``: write the digits of a file in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pxdbg_runtime.command_line.console import format_event_count, report_failures, stderr, stdout
from pxdbg_runtime.command_line.digit_output import ExperimentNumber, FormatName, Overwrite, RunNumber, check_output
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import SUFFIX_LIST, FileMetadata, merge_files, open_writer
from pxdbg_runtime.formats.metadata import join_consecutive_jobs
from pxdbg_runtime.formats.run_numbers import choose_run_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pxdbg_runtime.formats import MergedReader
    from pxdbg_runtime.formats.run_numbers import RunNumbers

__all__ = ["convert", "copy_events"]


def convert(
    file: Annotated[Path, typer.Argument(help=f"Digit file to read, {SUFFIX_LIST}.")],
    output: Annotated[Path, typer.Option(help=f"File to write, {SUFFIX_LIST}.")],
    overwrite: Overwrite = False,
    format_name: FormatName = None,
    experiment: ExperimentNumber = None,
    run: RunNumber = None,
) -> None:
    """Write the digits of a file in another format.

    Digits, events without digits and provenance stay the same. The file appears
    when it is complete.
    """
    with report_failures():
        run_numbers = choose_run_numbers(format_name, experiment, run)
        copy_events([file], output, format_name, run_numbers, overwrite=overwrite)


def copy_events(
    inputs: Sequence[Path],
    output: Path,
    format_name: str | None,
    run_numbers: RunNumbers | None,
    *,
    overwrite: bool,
    joins_jobs: bool = False,
) -> None:
    """Write the events of digit files to one file, ordered by event number, in bounded memory.

    Parameters
    ----------
    inputs : sequence of Path
    output : Path
    format_name : str or None
        Name of the format to write; None takes the first that writes the path's suffix.
    run_numbers : RunNumbers or None
        For a format that records them.
    overwrite : bool
        Whether an existing file may be replaced.
    joins_jobs : bool
        Whether jobs that follow on each other are recorded as one.

    Raises
    ------
    ArgumentValueError, MissingPackageError, OutputError
        As `check_output`; also if two jobs have an event of the same number.
    DigitFileError
        If a file is damaged, if two are not one sample or have an event in common, or if it is unknown how the digits
        of one were generated.
    """
    check_output(output, format_name, overwrite=overwrite, inputs=inputs)
    sample = merge_files(inputs)
    _check_origin(sample)
    n_digits = 0
    jobs = join_consecutive_jobs(sample.jobs) if joins_jobs else sample.jobs
    metadata = FileMetadata(jobs=jobs, run_numbers=run_numbers)
    with open_writer(output, metadata, format_name=format_name) as writer:
        for _number, digits in track(sample.read_ordered_events(), total=sample.n_events, description="events"):
            writer.write(digits)
            n_digits += len(digits)
    stdout.print(f"wrote {output}: {format_event_count(sample.n_events)}, {n_digits:,} digits", soft_wrap=True)


def _check_origin(sample: MergedReader) -> None:
    """Check that it is known how all digits were generated; print which files have no digest."""
    for reader in sample.readers:
        if not reader.jobs:
            message = (
                f"How the digits of {reader.path} were generated is unknown ({reader.remark}), and a file that is "
                "written here must record it: generate them again, or write them with the tool that wrote this file."
            )
            raise DigitFileError(reader.path, message)
        if not reader.is_checked:
            stderr.print(
                f"{reader.path} has no digest (an older release or another tool wrote it): its digits are copied as "
                "they are, and the new digest does not tell whether they were changed before.",
                soft_wrap=True,
            )
