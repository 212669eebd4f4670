"""Reading files of digits: event by event, in blocks, or whole; each row is checked, and so is the digest."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import DigitFileError, JsonFieldError
from pxdbg_runtime.formats.digest import FileDigest, RowHasher, hash_metadata
from pxdbg_runtime.formats.npz import NpzSource
from pxdbg_runtime.formats.parquet import ParquetSource
from pxdbg_runtime.formats.provenance import Provenance
from pxdbg_runtime.formats.row_checks import CHANGED, RowChecker, RowError, read_blocks, refuse_rows, select_rows
from pxdbg_runtime.formats.scanning import RowScan, read_sorted, scan_rows
from pxdbg_runtime.formats.sources import DigitSource, StoredTexts, check_suffix, report_damage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DigitFile", "DigitReader", "EventReader", "open_events", "read_digits"]

_NEVER_EMPTY: Final = 1000
"""Mean number of digits of an event from which on no event is empty. Metadata that count more events than have digits are
then not those of all rows: rows were removed."""
_CREDIBLE_EVENTS: Final = 1000
"""Events for each row, and one time more, that metadata may count. A larger count is not believed: each event takes
memory, also one without digits, and a damaged or forged count is cheap to write."""


@dataclass(frozen=True, kw_only=True)
class DigitFile:
    """What a file of digits holds.

    Attributes
    ----------
    digits : Digits
        Of all events, ordered.
    describe_generation : Provenance or None
        None if that is unknown: another tool wrote the file, and nothing survived that describes all of its rows.
    n_events : int
        Number of events. Where `describe_generation` is None those that have a digit, as others cannot be seen.
    is_checked : bool
        Whether rows and metadata agree with the digest that they were written with. Files of older releases, and
        those that another tool wrote, have none.
    """

    digits: Digits
    describe_generation: Provenance | None
    n_events: int
    is_checked: bool


class DigitReader(Protocol):
    """Gives the digits of one sample, which is one file or several, in bounded memory."""

    @property
    def path(self) -> Path:
        """The file, or the first of several."""

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """How the digits of each file were made; empty if that is unknown."""

    @property
    def n_events(self) -> int:
        """Number of events."""

    @property
    def is_checked(self) -> bool:
        """Whether all that is read is compared with a digest."""

    @property
    def remark(self) -> str:
        """Why it is unknown how the digits were made; else empty."""

    def blocks(self) -> Iterator[Digits]:
        """Read the digits in order, some hundred thousand at a time."""

    def numbered(self) -> Iterator[tuple[int, Digits]]:
        """Read event by event: number and digits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EventReader:
    """Gives the digits of a file event by event, so that a long file need not fit in memory.

    Each event that the file tells of comes once, in order, those without digits too.

    Attributes
    ----------
    path : Path
    describe_generation : Provenance or None
        None if that is unknown; events without digits cannot be seen then, and do not come.
    event_numbers : ndarray of int64, shape (events,)
        Numbers of the events, ascending.
    is_checked : bool
        Whether the file carries a digest, which is compared with all rows once they were read.
    remark : str
        Why it is unknown how the digits were made; else empty.
    """

    path: Path
    describe_generation: Provenance | None
    event_numbers: NDArray[np.int64] = field(repr=False)
    is_checked: bool
    remark: str
    _source: DigitSource = field(repr=False)
    _digest: FileDigest | None = field(repr=False)
    _passes: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """How the digits were made; empty if that is unknown."""
        return () if self.describe_generation is None else (self.describe_generation,)

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.event_numbers)

    def __iter__(self) -> Iterator[Digits]:
        """Read the file from its beginning, one event after the other.

        Raises
        ------
        DigitFileError
            As `read_digits`.
        """
        for _number, digits in self.numbered():
            yield digits

    def numbered(self) -> Iterator[tuple[int, Digits]]:
        """Read the file from its beginning: number and digits of one event after the other; raises as `read_digits`."""
        waiting = iter(self.event_numbers.tolist())
        for event, digits in self._filled_events():
            for number in waiting:
                if number == event:
                    break
                yield number, Digits.empty()
            yield event, digits
        for number in waiting:
            yield number, Digits.empty()

    def blocks(self) -> Iterator[Digits]:
        """Read the file from its beginning in blocks of rows, which may end within an event; raises as `read_digits`."""
        checker = RowChecker(self.describe_generation)
        hasher = RowHasher()
        is_sorted = not self._passes
        blocks = (
            read_blocks(self.path, self._source) if is_sorted else read_sorted(self.path, self._source, self._passes)
        )
        for digits in blocks:
            try:
                checker.check(digits)
            except RowError as error:
                raise refuse_rows(self.path, error, has_digest=self._digest is not None) from None
            if self._digest is not None:
                hasher.update(digits)
            yield digits
        if self._digest is not None and (hasher.rows, hasher.sha256()) != (self._digest.rows, self._digest.rows_sha256):
            message = f"{self.path} holds other rows than those that its digest was made of: {CHANGED}."
            raise DigitFileError(self.path, message)

    def _filled_events(self) -> Iterator[tuple[int, Digits]]:
        """Give the events that have digits."""
        parts: list[Digits] = []
        for block in self.blocks():
            if not len(block):
                continue
            if parts and parts[0].event[0] != block.event[0]:
                yield int(parts[0].event[0]), Digits.concatenate(parts)
                parts = []
            starts = [0, *(np.flatnonzero(np.diff(block.event)) + 1).tolist()]
            for start, stop in itertools.pairwise(starts):
                yield int(block.event[start]), Digits.concatenate([*parts, select_rows(block, start, stop)])
                parts = []
            # The last event of a block may go on in the next one.
            parts.append(select_rows(block, starts[-1], len(block)))
        if parts:
            yield int(parts[0].event[0]), Digits.concatenate(parts)


def open_events(path: Path) -> EventReader:
    """Open a file of digits to read it event by event.

    Integers of any width and columns beside ours are read too. A file without a digest, of an older release or of
    another tool, is read once here, to find its events.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `read_digits`; what is wrong with the rows of a file with a digest comes up when they are read.
    """
    check_suffix(path)
    source: DigitSource = ParquetSource(path) if path.suffix == ".parquet" else NpzSource(path)
    with report_damage(path):
        texts = source.texts()
    digest = _parse_digest(path, texts)
    how = None if texts.metadata is None else _parse_how_made(path, texts.metadata)
    scan = None if digest is not None else scan_rows(path, source)
    remark = "" if scan is None else _doubt(how, scan)
    if remark:
        how = None
    if how is not None:
        events = np.arange(how.events, dtype=np.int64) + how.first_event
    else:
        events = np.empty(0, dtype=np.int64) if scan is None else scan.events
    if not len(events):
        message = f"{path} holds no digits, and nothing that tells of which events: generate it again."
        raise DigitFileError(path, message)
    return EventReader(
        path=path,
        describe_generation=how,
        event_numbers=events,
        is_checked=digest is not None,
        remark=remark,
        _source=source,
        _digest=digest,
        _passes=() if scan is None else scan.passes,
    )


def read_digits(path: Path) -> DigitFile:
    """Read a whole file of digits.

    Parameters
    ----------
    path : Path
        Ends in .parquet or .npz. Other tools may have written it, if it holds the columns of `Digits` as integers.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        If it ends in neither, or is Parquet and pyarrow is not installed.
    DigitFileError
        If the file cannot be read, lacks a column, is damaged or was changed after it was written; if it holds what is no
        digit, a digit twice, a charge below its own threshold, or more unsorted rows than are sorted here, fifty million.
    """
    reader = open_events(path)
    digits = Digits.concatenate(reader.blocks())
    return DigitFile(
        digits=digits,
        describe_generation=reader.describe_generation,
        n_events=reader.n_events,
        is_checked=reader.is_checked,
    )


def _doubt(how: Provenance | None, scan: RowScan) -> str:
    """Say why metadata cannot be those of all rows; nothing if they can."""
    if how is None:
        return "it has no metadata"
    if len(scan.events) and (scan.events[0] < how.first_event or scan.events[-1] > how.last_event):
        return (
            f"its metadata tell of the events {how.first_event} to {how.last_event} alone, but it holds digits of "
            f"{scan.events[0]} to {scan.events[-1]}"
        )
    is_missing = how.events > len(scan.events) > 0 and scan.rows >= _NEVER_EMPTY * len(scan.events)
    if is_missing or how.events > _CREDIBLE_EVENTS * (1 + scan.rows):
        return f"its metadata tell of {how.events:,} events, but it holds digits of {len(scan.events):,}"
    return ""


def _parse_how_made(path: Path, text: str) -> Provenance:
    try:
        return Provenance.from_json(text)
    except JsonFieldError as error:
        message = f"{path} does not say how its digits were made: {error}"
        raise DigitFileError(path, message) from None


def _parse_digest(path: Path, texts: StoredTexts) -> FileDigest | None:
    if texts.digest is None:
        return None
    try:
        digest = FileDigest.from_json(texts.digest)
    except JsonFieldError:
        message = f"{path} has a digest that cannot be read: {CHANGED}."
        raise DigitFileError(path, message) from None
    if texts.metadata is None or hash_metadata(texts.metadata) != digest.metadata_sha256:
        message = f"{path} has other metadata than those that its digest was made of: {CHANGED}."
        raise DigitFileError(path, message)
    return digest
