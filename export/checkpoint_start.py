"""Reads the start of a checkpoint file, without PyTorch: the command refuses a wrong path before it imports that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.errors import CheckpointError
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_start"]


def read_start(path: Path, n_bytes: int) -> bytes:
    """Read the first bytes of a checkpoint file, or all if it has fewer.

    Raises
    ------
    CheckpointError
        If it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return file.read(n_bytes)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}.") from None
