"""Check that an output does not overwrite an input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["check_not_an_input"]


def check_not_an_input(option: str, output: Path, inputs: Iterable[Path]) -> None:
    """Check that a file to write is none of those that are read, under any path or link.

    Parameters
    ----------
    option : str
        Name of the option that names the output, without dashes.
    output : Path
        It need not exist, nor need the inputs.
    inputs : iterable of Path

    Raises
    ------
    ArgumentValueError
        If it is one of them.
    """
    for path in inputs:
        if _is_same_file(output, path):
            written = f"{output} over" if str(output) != str(path) else "over"
            message = f"--{option} would write {written} {path}, which is read: name another file to write."
            raise ArgumentValueError(option, message)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False  # one of them does not exist
