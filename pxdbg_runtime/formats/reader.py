"""Read digit files event by event, in blocks, or whole; each row is checked, and the rows against the digest."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import DigitFileError, JsonFieldError
from pxdbg_runtime.formats.damage import CHANGED, refuse_rows, report_damage
from pxdbg_runtime.formats.digest import FileDigest, RowHasher, hash_metadata
from pxdbg_runtime.formats.provenance import Provenance
from pxdbg_runtime.formats.registry import find_format
from pxdbg_runtime.formats.row_checks import RowChecker, RowError, find_other_sensor
from pxdbg_runtime.formats.scanning import RowScan, read_rows, read_sorted_rows, scan_rows
from pxdbg_runtime.sensors import describe_sensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.interface import FormatReader, StoredTexts

__all__ = ["DigitFile", "DigitReader", "EventReader", "open_events", "read_digits"]

_MIN_DIGITS_WITHOUT_EMPTY_EVENTS: Final = 1000
"""If events have this many digits on average, none is empty. Metadata that count more events than have digits then
belong to other rows: rows were removed."""
_MAX_EVENTS_PER_ROW: Final = 1000
"""Metadata may count this many events for each row, plus one time more. A larger count is ignored: each event takes
memory, also one without digits, and a damaged or forged count is cheap to write."""


@dataclass(frozen=True, kw_only=True)
class DigitFile:
    """The content of a digit file.

    Attributes
    ----------
    digits : Digits
        Of all events, ordered.
    provenance : Provenance or None
        None if it is unknown: another tool wrote the file, and no metadata describe all of its rows.
    n_events : int
        Number of events. Where `provenance` is None, of those that have a digit, as others cannot be seen.
    is_checked : bool
        Whether rows and metadata match the digest that was written with them. Files of older releases and of other
        tools have none.
    """

    digits: Digits
    provenance: Provenance | None
    n_events: int
    is_checked: bool


class DigitReader(Protocol):
    """Reads the digits of one sample, which is one file or several, in bounded memory."""

    @property
    def path(self) -> Path:
        """The file, or the first of several."""

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """Provenance of each file; empty if it is unknown."""

    @property
    def n_events(self) -> int:
        """Number of events."""

    @property
    def is_checked(self) -> bool:
        """Whether all rows are compared with a digest."""

    @property
    def remark(self) -> str:
        """Why the provenance is unknown; else empty."""

    def read_blocks(self) -> Iterator[Digits]:
        """Read the digits in order, some hundred thousand at a time."""

    def read_events(self) -> Iterator[tuple[int, Digits]]:
        """Read event by event: number and digits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EventReader:
    """Reads the digits of a file event by event, so that a long file need not fit in memory.

    Each event that the file tells of comes once, in order, those without digits too.

    Attributes
    ----------
    path : Path
    provenance : Provenance or None
        None if it is unknown; events without digits cannot be seen then, and do not come.
    event_numbers : ndarray of int64, shape (events,)
        Numbers of the events, ascending.
    is_checked : bool
        Whether the file has a digest, which is compared with the rows after the last one is read.
    remark : str
        Why the provenance is unknown; else empty.
    """

    path: Path
    provenance: Provenance | None
    event_numbers: NDArray[np.int64] = field(repr=False)
    is_checked: bool
    remark: str
    _reader: FormatReader = field(repr=False)
    _digest: FileDigest | None = field(repr=False)
    _passes: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """The provenance; empty if it is unknown."""
        return () if self.provenance is None else (self.provenance,)

    @property
    def n_events(self) -> int:
        """Number of events."""
        return len(self.event_numbers)

    def __iter__(self) -> Iterator[Digits]:
        """Read the file from its beginning, one event after the other; raises as `read_digits`."""
        for _number, digits in self.read_events():
            yield digits

    def read_events(self) -> Iterator[tuple[int, Digits]]:
        """Read the file from its beginning: number and digits of one event after the other; raises as `read_digits`."""
        numbers = iter(self.event_numbers.tolist())
        for event, digits in _split_events(self.read_blocks()):
            for number in numbers:
                if number == event:
                    break
                yield number, Digits.empty()
            yield event, digits
        for number in numbers:
            yield number, Digits.empty()

    def read_blocks(self) -> Iterator[Digits]:
        """Read the file in blocks of rows, which may end within an event; raises as `read_digits`."""
        checker = RowChecker(self.provenance)
        hasher = RowHasher()
        if self._passes:
            blocks = read_sorted_rows(self.path, self._reader, self._passes)
        else:
            blocks = read_rows(self.path, self._reader)
        for digits in blocks:
            try:
                checker.check(digits)
            except RowError as error:
                raise refuse_rows(self.path, error, has_digest=self._digest is not None) from None
            if self._digest is not None:
                hasher.update(digits)
            yield digits
        if self._digest is not None and not hasher.matches(self._digest):
            message = f"{self.path} holds other rows than those that its digest was computed from: {CHANGED}."
            raise DigitFileError(self.path, message)


def open_events(path: Path) -> EventReader:
    """Open a digit file to read it event by event.

    Integers of any width and additional columns are accepted. A file without a digest, of an older release or of
    another tool, is read once here, to find its events.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `read_digits`; invalid rows of a file with a digest are found when they are read.
    """
    reader = find_format(path).reader(path)
    with report_damage(path):
        texts = reader.read_texts()
    digest = _parse_digest(path, texts)
    provenance = None if texts.metadata is None else _parse_provenance(path, texts.metadata)
    scan = None if digest is not None else scan_rows(path, reader)
    remark = "" if scan is None else _explain_mismatch(provenance, scan)
    if remark:
        provenance = None
    if provenance is not None:
        events = np.arange(provenance.events, dtype=np.int64) + provenance.first_event
    else:
        events = np.empty(0, dtype=np.int64) if scan is None else scan.events
    if not len(events):
        raise DigitFileError(path, f"{path} holds no digits, and no metadata that name its events: generate it again.")
    return EventReader(
        path=path,
        provenance=provenance,
        event_numbers=events,
        is_checked=digest is not None,
        remark=remark,
        _reader=reader,
        _digest=digest,
        _passes=() if scan is None else scan.passes,
    )


def read_digits(path: Path) -> DigitFile:
    """Read a whole digit file.

    Parameters
    ----------
    path : Path
        Ends in one of `SUFFIXES`. Other tools may have written it, if it holds the columns of `Digits` as integers.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        If it ends in neither, or is Parquet and pyarrow is not installed.
    DigitFileError
        If the file cannot be read, lacks a column, is damaged or was changed after it was written; if it holds what is
        no digit, a digit twice, a charge below its own threshold, or more unsorted rows than are sorted here, fifty
        million.
    """
    reader = open_events(path)
    digits = Digits.concatenate(reader.read_blocks())
    return DigitFile(
        digits=digits, provenance=reader.provenance, n_events=reader.n_events, is_checked=reader.is_checked
    )


def _split_events(blocks: Iterator[Digits]) -> Iterator[tuple[int, Digits]]:
    """Split sorted blocks into the events that have digits: number and digits of each."""
    parts: list[Digits] = []
    for block in blocks:
        if not len(block):
            continue
        if parts and parts[0].event[0] != block.event[0]:
            yield int(parts[0].event[0]), Digits.concatenate(parts)
            parts = []
        starts = [0, *(np.flatnonzero(np.diff(block.event)) + 1).tolist()]
        for start, stop in itertools.pairwise(starts):
            yield int(block.event[start]), Digits.concatenate([*parts, block.select_rows(slice(start, stop))])
            parts = []
        # The last event of a block may go on in the next one.
        parts.append(block.select_rows(slice(starts[-1], None)))
    if parts:
        yield int(parts[0].event[0]), Digits.concatenate(parts)


def _explain_mismatch(provenance: Provenance | None, scan: RowScan) -> str:
    """Explain why metadata do not describe all rows of a file without a digest; empty if they may."""
    if provenance is None:
        return "it has no metadata"
    n_events = len(scan.events)
    if n_events and (scan.events[0] < provenance.first_event or scan.events[-1] > provenance.last_event):
        return (
            f"its metadata describe the events {provenance.first_event} to {provenance.last_event} alone, but it holds "
            f"digits of {scan.events[0]} to {scan.events[-1]}"
        )
    other = find_other_sensor(scan.vxd_ids, provenance)
    if other is not None:
        generated = describe_sensors(provenance.generated_sensors)
        return f"its metadata describe {generated} alone, but it holds digits of sensor {other}"
    is_missing = provenance.events > n_events > 0 and scan.rows >= _MIN_DIGITS_WITHOUT_EMPTY_EVENTS * n_events
    if is_missing or provenance.events > _MAX_EVENTS_PER_ROW * (1 + scan.rows):
        return f"its metadata describe {provenance.events:,} events, but it holds digits of {n_events:,}"
    return ""


def _parse_provenance(path: Path, text: str) -> Provenance:
    try:
        return Provenance.from_json(text)
    except JsonFieldError as error:
        raise DigitFileError(path, f"{path} does not say how its digits were generated: {error}") from None


def _parse_digest(path: Path, texts: StoredTexts) -> FileDigest | None:
    if texts.digest is None:
        return None
    try:
        digest = FileDigest.from_json(texts.digest)
    except JsonFieldError:
        raise DigitFileError(path, f"{path} has a digest that cannot be read: {CHANGED}.") from None
    if texts.metadata is None or hash_metadata(texts.metadata) != digest.metadata_sha256:
        message = f"{path} has other metadata than those that its digest was computed from: {CHANGED}."
        raise DigitFileError(path, message)
    return digest
