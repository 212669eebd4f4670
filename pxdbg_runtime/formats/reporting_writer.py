"""Errors while digits are written: those of the file name it, those of the events between pass as they are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pxdbg_runtime.formats.atomic_write import report_file_errors

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.writer import DigitWriter

__all__ = ["ReportingWriter"]


class ReportingWriter:
    """Names the file in the errors of a writer, and in no others of the block that it is used in.

    Parameters
    ----------
    path : Path
        What the errors name.
    opened : context manager
        Gives the writer, and closes the file at its end.
    """

    def __init__(self, path: Path, opened: contextlib.AbstractContextManager[DigitWriter]) -> None:
        self._path = path
        self._opened = opened

    def __enter__(self) -> DigitWriter:
        with report_file_errors(self._path):
            self._writer = self._opened.__enter__()
        return self

    def write(self, digits: Digits) -> None:
        """Append digits."""
        with report_file_errors(self._path):
            self._writer.write(digits)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Where the block failed, its error counts, and not that the file cannot be closed either.
        with contextlib.suppress(*(() if kind is None else (Exception,))), report_file_errors(self._path):
            self._opened.__exit__(kind, error, traceback)
