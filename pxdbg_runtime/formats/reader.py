"""Read digit files event by event, in blocks, or whole; each row is checked, and the rows against the digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from pxdbg_runtime.checks import check_path
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import DigitFileError, JsonFieldError
from pxdbg_runtime.formats.damage import CHANGED, refuse_rows, report_damage
from pxdbg_runtime.formats.digest import FileDigest, RowHasher, hash_metadata
from pxdbg_runtime.formats.metadata import FileMetadata
from pxdbg_runtime.formats.registry import open_reader
from pxdbg_runtime.formats.row_checks import RowChecker, RowError, find_other_event, find_other_sensor
from pxdbg_runtime.formats.scanning import RowScan, read_rows, read_sorted_rows, scan_rows
from pxdbg_runtime.formats.whole_events import assemble_events
from pxdbg_runtime.sensors import describe_sensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.formats.interface import FormatReader, StoredTexts
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["DigitFile", "DigitReader", "EventReader", "open_events", "read_digits"]

_MIN_DIGITS_WITHOUT_EMPTY_EVENTS: Final = 50
"""If events have this many digits on average, as those of one sensor have, none is empty. Metadata that count more
events than have digits then belong to other rows: rows were removed."""
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
    jobs : tuple of Provenance
        How they were generated: one, or several if the file was merged. Empty if it is unknown: another tool wrote the
        file, and no metadata describe all of its rows.
    n_events : int
        Number of events. Where `jobs` is empty, of those that have a digit, as others cannot be seen.
    is_checked : bool
        Whether rows and metadata match the digest that was written with them. Files of older releases and of other
        tools have none.
    """

    digits: Digits
    jobs: tuple[Provenance, ...]
    n_events: int
    is_checked: bool

    @property
    def provenance(self) -> Provenance | None:
        """The only job; None if it is unknown or there are several."""
        return self.jobs[0] if len(self.jobs) == 1 else None


class DigitReader(Protocol):
    """Reads the digits of one sample, which is one file or several.

    Nothing of the digits is read before they are asked for, and each method reads the sample from its beginning. Events
    and blocks are read in bounded memory.
    """

    @property
    def path(self) -> Path:
        """The file, or the first of several."""

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """Provenance of each job whose digits are read; empty if it is unknown."""

    @property
    def provenance(self) -> Provenance | None:
        """The only job; None if it is unknown or there are several."""

    @property
    def n_events(self) -> int:
        """Number of events."""

    @property
    def event_numbers(self) -> NDArray[np.int64]:
        """Numbers of the events, in the order in which they are read."""

    @property
    def is_checked(self) -> bool:
        """Whether all rows are compared with a digest."""

    @property
    def remark(self) -> str:
        """Why the provenance is unknown; else empty."""

    def __iter__(self) -> Iterator[Digits]:
        """Read event by event, those without digits too."""

    def read_blocks(self) -> Iterator[Digits]:
        """Read the digits in order, some hundred thousand at a time."""

    def read_events(self) -> Iterator[tuple[int, Digits]]:
        """Read event by event: number and digits."""

    def read(self) -> Digits:
        """Read all digits; raises `ArgumentValueError` if two events of a sample have the same number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EventReader:
    """Reads the digits of a file event by event, so that a long file need not fit in memory.

    Each event that the file tells of comes once, in order, those without digits too.

    Attributes
    ----------
    path : Path
    metadata : FileMetadata or None
        None if the provenance is unknown; events without digits cannot be seen then, and do not come.
    event_numbers : ndarray of int64, shape (events,)
        Numbers of the events, ascending.
    is_checked : bool
        Whether the file has a digest, which is compared with the rows after the last one is read.
    remark : str
        Why the provenance is unknown; else empty.
    """

    path: Path
    metadata: FileMetadata | None = field(repr=False)
    event_numbers: NDArray[np.int64] = field(repr=False)
    is_checked: bool
    remark: str
    _reader: FormatReader = field(repr=False)
    _digest: FileDigest | None = field(repr=False)
    _passes: tuple[tuple[int, int], ...] = field(repr=False)

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """Provenance of each job whose digits the file holds; empty if it is unknown."""
        return () if self.metadata is None else self.metadata.jobs

    @property
    def provenance(self) -> Provenance | None:
        """The only job; None if it is unknown or there are several."""
        return self.jobs[0] if len(self.jobs) == 1 else None

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
        return assemble_events(self.read_blocks(), self.event_numbers)

    def read(self) -> Digits:
        """Read all digits; raises as `read_digits`."""
        return Digits.concatenate(self.read_blocks())

    def read_blocks(self) -> Iterator[Digits]:
        """Read the file in blocks of rows, which may end within an event; raises as `read_digits`."""
        checker = RowChecker(self.metadata)
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


def open_events(path: StrPath) -> EventReader:
    """Open a digit file to read it event by event.

    Integers of any width and additional columns are accepted. A file without a digest, of an older release or of
    another tool, is read once here, to find its events.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `read_digits`; invalid rows of a file with a digest are found when they are read.
    """
    path = check_path("path", path)
    reader = open_reader(path)
    with report_damage(path):
        texts = reader.read_texts()
    digest = _parse_digest(path, texts)
    metadata = None if texts.metadata is None else _parse_metadata(path, texts.metadata)
    scan = None if digest is not None else scan_rows(path, reader)
    remark = "" if scan is None else _explain_mismatch(metadata, scan, texts.n_events)
    if remark:
        metadata = None
    if metadata is not None:
        events = metadata.event_numbers
    else:
        events = np.empty(0, dtype=np.int64) if scan is None else scan.events
    if not len(events):
        raise DigitFileError(path, f"{path} holds no digits, and no metadata that name its events: generate it again.")
    return EventReader(
        path=path,
        metadata=metadata,
        event_numbers=events,
        is_checked=digest is not None,
        remark=remark,
        _reader=reader,
        _digest=digest,
        _passes=() if scan is None else scan.passes,
    )


def read_digits(path: StrPath) -> DigitFile:
    """Read a whole digit file.

    Parameters
    ----------
    path : str or path
        Ends in one of `SUFFIXES`. Other tools may have written it, if it holds the columns of `Digits` as integers.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        If it ends in none of them, or the package of its format is not installed.
    DigitFileError
        If the file cannot be read, lacks a column, is damaged or was changed after it was written; if it holds what is
        no digit, a digit twice, a charge below its own threshold, or more unsorted rows than are sorted here, fifty
        million.
    """
    reader = open_events(path)
    digits = reader.read()
    return DigitFile(digits=digits, jobs=reader.jobs, n_events=reader.n_events, is_checked=reader.is_checked)


def _explain_mismatch(metadata: FileMetadata | None, scan: RowScan, n_listed: int | None) -> str:
    """Explain why metadata do not describe all rows of a file without a digest; empty if they may."""
    if metadata is None:
        return "it has no metadata"
    numbers = metadata.event_numbers
    n_events = len(scan.events)
    if n_events and (scan.events[0] < numbers[0] or scan.events[-1] > numbers[-1]):
        return (
            f"its metadata describe the events {numbers[0]} to {numbers[-1]} alone, but it holds "
            f"digits of {scan.events[0]} to {scan.events[-1]}"
        )
    other_event = find_other_event(scan.events, metadata)
    if other_event is not None:
        return f"its metadata describe no event {other_event}, but it holds digits of it"
    other = find_other_sensor(scan.vxd_ids, metadata)
    if other is not None:
        generated = describe_sensors(metadata.generated_sensors)
        return f"its metadata describe {generated} alone, but it holds digits of sensor {other}"
    if n_listed is not None:
        return (
            ""
            if n_listed == len(numbers)
            else f"its metadata describe {len(numbers):,} events, but it lists {n_listed:,}"
        )
    is_missing = len(numbers) > n_events > 0 and scan.rows >= _MIN_DIGITS_WITHOUT_EMPTY_EVENTS * n_events
    if is_missing or len(numbers) > _MAX_EVENTS_PER_ROW * (1 + scan.rows):
        return f"its metadata describe {len(numbers):,} events, but it holds digits of {n_events:,}"
    return ""


def _parse_metadata(path: Path, text: str) -> FileMetadata:
    try:
        return FileMetadata.from_json(text)
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
