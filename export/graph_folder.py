"""The graphs of a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["list_graphs"]


def list_graphs(folder: Path) -> list[Path]:
    """List the graphs of a folder, sorted; none if there is no such folder.

    Raises
    ------
    ArgumentValueError
        If the folder cannot be read.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208  # Path.glob raises for some folders and is silent for others
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        message = f"The folder {folder} cannot be read: {error.strerror or error}."
        raise ArgumentValueError("folder", message) from None
    return sorted(folder / name for name in names if name.endswith(".onnx"))
