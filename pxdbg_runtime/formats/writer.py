"""Writing files of digits, event by event, in bounded memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import open_partial
from pxdbg_runtime.formats.npz import write_npz
from pxdbg_runtime.formats.parquet import write_parquet
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.reporting_writer import ReportingWriter
from pxdbg_runtime.formats.row_checks import RowChecker, RowError
from pxdbg_runtime.formats.sources import check_suffix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["DigitWriter", "open_writer"]


class DigitWriter(Protocol):
    """Takes the digits of one event after the other."""

    def write(self, digits: Digits) -> None:
        """Append digits.

        Raises
        ------
        ArgumentValueError
            If they are not ordered by event, sensor, u, v, come twice, or do not fit what the file says of itself.
        """


class _CheckedWriter:
    """Writes nothing that could not be read."""

    def __init__(self, path: Path, writer: DigitWriter, how: Provenance) -> None:
        self._path = path
        self._writer = writer
        self._checker = RowChecker(how)

    def write(self, digits: Digits) -> None:
        try:
            self._checker.check(digits)
        except RowError as error:
            message = f"{self._path} was given {error}."
            raise ArgumentValueError("digits", message) from None
        self._writer.write(digits)


@contextlib.contextmanager
def open_writer(path: Path, how: Provenance) -> Iterator[DigitWriter]:
    """Open a file of digits; it appears, whole, when the block ends well.

    Neither format takes more memory for more events. Parquet goes to disk in row groups of a million rows or 128 events;
    the columns of an NPZ wait in temporary files beside it.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `check_suffix`; also if the file would hold more than a million events.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    check_suffix(path)
    if how.events > MAX_FILE_EVENTS:
        message = (
            f"{path} would hold {how.events:,} events, expected at most {MAX_FILE_EVENTS:,}: split them over several "
            "files, which are read as one sample."
        )
        raise ArgumentValueError("events", message)
    open_writer = write_parquet if path.suffix == ".parquet" else write_npz
    with open_partial(path) as partial, ReportingWriter(path, open_writer(partial, how.to_json())) as writer:
        yield _CheckedWriter(path, writer, how)
