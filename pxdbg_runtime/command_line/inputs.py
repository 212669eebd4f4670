"""Outputs that would take the place of an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["check_not_an_input"]


def check_not_an_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Check that a file to write is none of those that are read, by whatever path or link.

    Parameters
    ----------
    option : str
        Name of the option, without dashes, that names the output.
    output : Path
        It need not exist, nor need the inputs.
    inputs : iterable of Path

    Raises
    ------
    ArgumentValueError
        If it is.
    """
    for path in inputs:
        if _is_same_file(output, path):
            message = (
                f"--{option} would write {output} over {path}, which is read: name another file to write."
                if str(output) != str(path)
                else f"--{option} would write over {path}, which is read: name another file to write."
            )
            raise ArgumentValueError(option, message)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        # One of them is not there; then it is not the other.
        return False
