"""Output folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["create_folder"]


def create_folder(folder: Path) -> None:
    """Create a folder and those above it, unless they exist.

    Raises
    ------
    OutputError
        If that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"The folder {folder} cannot be made: {error.strerror or error}.") from None
