"""The file that PyArrow writes Parquet into."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from _typeshed import ReadableBuffer

__all__ = ["ParquetSink"]


class ParquetSink(io.BufferedWriter):
    """A file that ignores what is written after it is closed.

    PyArrow writes the end of a file when its writer is collected, and prints a traceback if it cannot. So it would
    after a signal between the creation of the writer and its end, when the file is closed and will be removed.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "w"))

    def write(self, content: ReadableBuffer) -> int:
        """Write bytes, or nothing if the file is closed."""
        return memoryview(content).nbytes if self.closed else super().write(content)
