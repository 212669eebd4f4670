"""The digit file that a command writes: its options, and checks before the work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from pxdbg_runtime.command_line.completion import complete_format
from pxdbg_runtime.command_line.inputs import check_not_an_input
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats import FORMATS, find_format
from pxdbg_runtime.formats.atomic_write import check_target
from pxdbg_runtime.formats.run_numbers import MAX_EXPERIMENT, MAX_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "ExperimentNumber",
    "FormatName",
    "Overwrite",
    "PartFormat",
    "RunNumber",
    "check_new_file",
    "check_output",
    "check_overwrite",
]

_LINES: Final = tuple(f"{name}: {each.summary} ({' or '.join(each.suffixes)})." for name, each in FORMATS.items())
_HELP: Final = "\n\n".join(("One of:", *_LINES))
"""An empty line is what makes typer begin a line."""
FormatName = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", show_default="by the suffix", help=_HELP, autocompletion=complete_format),
]
"""Type of the parameter `format_name` of a command."""
PartFormat = Annotated[str, typer.Option("--format", metavar="NAME", help=_HELP, autocompletion=complete_format)]
"""Its type where no path has a suffix."""
ExperimentNumber = Annotated[
    int | None,
    typer.Option(
        min=0, max=MAX_EXPERIMENT, help="Experiment of the basf2 jobs that read the file; --format overlay needs it."
    ),
]
RunNumber = Annotated[
    int | None,
    typer.Option(
        min=0, max=MAX_RUN, show_default=False, help="Run of these jobs; needed for the experiments 1 to 999."
    ),
]


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")]


def check_output(output: Path, format_name: str | None = None, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check before the work that a digit file can be written in a format.

    Parameters
    ----------
    output : Path
    format_name : str or None
        Name of the format; None takes the first that writes the path's suffix.
    overwrite : bool
        Whether an existing file may be replaced.
    inputs : iterable of Path
        Files that are read: the output must be none of them.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `find_format`, and if the output is an input.
    OutputError
        If the file cannot be written, or exists and may not be replaced.
    """
    find_format(output, format_name)
    check_new_file(output, overwrite=overwrite, inputs=inputs)


def check_new_file(output: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Check before the work that a file can be written; the arguments and errors are those of `check_output`."""
    check_target(output)
    check_not_an_input("output", output, inputs)
    check_overwrite(output, overwrite=overwrite)


def check_overwrite(output: Path, *, overwrite: bool) -> None:
    """Check that a file does not exist, or may be replaced; raises `OutputError`."""
    if output.exists() and not overwrite:
        message = f"{output} exists: name another file to write, or replace it with --overwrite."
        raise OutputError(output, message)
