"""Write digit files, event by event, in bounded memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import open_partial, report_file_errors
from pxdbg_runtime.formats.interface import DigitWriter
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.registry import find_format
from pxdbg_runtime.formats.row_checks import RowChecker, RowError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["DigitWriter", "open_writer"]


class _CheckedWriter:
    """Checks digits before they are written, and names the file in the errors of its own operations alone.

    Parameters
    ----------
    path : Path
        What the errors name.
    provenance : Provenance
        What the digits must agree with.
    opened : context manager
        The writer of the format; it completes the file when the block ends without an error.
    """

    def __init__(
        self, path: Path, provenance: Provenance, opened: contextlib.AbstractContextManager[DigitWriter]
    ) -> None:
        self._path = path
        self._opened = opened
        self._checker = RowChecker(provenance)

    def __enter__(self) -> DigitWriter:
        with report_file_errors(self._path):
            self._writer = self._opened.__enter__()
        return self

    def write(self, digits: Digits) -> None:
        """Append digits."""
        try:
            self._checker.check(digits)
        except RowError as error:
            raise ArgumentValueError("digits", f"{self._path} was given {error}.") from None
        with report_file_errors(self._path):
            self._writer.write(digits)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # If the block failed, its error counts, and not that the file cannot be closed either.
        with contextlib.suppress(*(() if kind is None else (Exception,))), report_file_errors(self._path):
            self._opened.__exit__(kind, error, traceback)


@contextlib.contextmanager
def open_writer(path: Path, provenance: Provenance) -> Iterator[DigitWriter]:
    """Open a digit file to write; the complete file appears when the block ends without an error.

    The memory does not grow with the number of events. Parquet is written in row groups of a million rows or 128
    events; the columns of an NPZ wait in temporary files beside it.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `find_format`; also if the file would hold more than a million events.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    file_format = find_format(path)
    if provenance.events > MAX_FILE_EVENTS:
        message = (
            f"{path} would hold {provenance.events:,} events, expected at most {MAX_FILE_EVENTS:,}: split them over "
            "several files, which are read as one sample."
        )
        raise ArgumentValueError("events", message)
    with (
        open_partial(path) as partial,
        _CheckedWriter(path, provenance, file_format.open_writer(partial, provenance.to_json())) as writer,
    ):
        yield writer
