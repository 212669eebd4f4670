"""What TTree and RNTuple have in common: an entry an event, with the columns of its digits as lists.

A file of ours also holds two TObjStrings, the texts `METADATA_KEY` and `DIGEST_KEY`, and its UUIDs begin with
`UUID_MARK`. Every tool that writes a new file (hadd, RDataFrame's Snapshot, uproot) gives it UUIDs of its own, though
hadd copies the texts. The digest therefore counts only where a UUID says that our writer wrote the file.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.interface import BLOCK_ROWS, DIGEST_KEY, METADATA_KEY
from pxdbg_runtime.formats.root_identity import derive_uuid, fix_dates, fix_uuids
from pxdbg_runtime.formats.whole_events import EntryChecker, EventAssembler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.interface import Columns
    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = [
    "LIST_COLUMNS",
    "MAX_TABLE_BYTES",
    "TABLE_NAME",
    "UUID_MARK",
    "Entries",
    "flatten_entries",
    "write_events",
]

TABLE_NAME: Final = "digits"
"""Name of the TTree or RNTuple."""
TITLE: Final = "PXD digits: an entry an event"
LIST_COLUMNS: Final = tuple(name for name in COLUMN_DTYPES if name != "event")
"""The columns that are lists."""
UUID_MARK: Final = b"pxdbg\x01"
"""The first bytes of the UUIDs of our files and of their directories; 1 is the version of the layout."""
MAX_TABLE_BYTES: Final = 64 << 20
"""Longest description of a TTree or RNTuple that is read: where its baskets or pages are. That of a million
events takes less than a megabyte."""
_GROUP_ROWS: Final = 1_000_000
_GROUP_EVENTS: Final = 1000
"""Events are written together when they have this many digits (7 MB), or are this many."""
_ZSTD_LEVEL: Final = 5
"""What ROOT itself takes with zstd. ResNet-like events take 145 kB and 6 ms; with level 12, 139 kB and 21 ms."""


class EventTable(Protocol):
    """A TTree or RNTuple that is being written."""

    def append(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64], digits: Digits) -> None:
        """Append events: their numbers, and where the digits of each begin and end."""


class _EventWriter:
    """Collects events, and writes many at once: each time costs a basket or page of every column."""

    def __init__(self, file: Any, table: EventTable, metadata: FileMetadata) -> None:  # noqa: ANN401
        self._file = file
        self._table = table
        self._metadata = metadata.to_json()
        self._hasher = RowHasher()
        self._assembler = EventAssembler(metadata.event_numbers)
        self._numbers: list[int] = []
        self._events: list[Digits] = []
        self._n_rows = 0

    def write(self, digits: Digits) -> None:
        """Append digits."""
        self._hasher.update(digits)
        self._add_events(self._assembler.add(digits))

    def finish(self) -> str:
        """Write the last events and the texts; returns the digest, which depends on all content."""
        self._add_events(self._assembler.finish())
        if self._numbers:
            self._write_group()
        self._file[METADATA_KEY] = self._metadata
        digest = self._hasher.compute_digest(self._metadata).to_json()
        self._file[DIGEST_KEY] = digest
        return digest

    def _add_events(self, events: Iterator[tuple[int, Digits]]) -> None:
        for number, digits in events:
            self._numbers.append(number)
            self._events.append(digits)
            self._n_rows += len(digits)
            if self._n_rows >= _GROUP_ROWS or len(self._numbers) >= _GROUP_EVENTS:
                self._write_group()

    def _write_group(self) -> None:
        counts = [len(digits) for digits in self._events]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        self._table.append(np.array(self._numbers, dtype=np.int64), offsets, Digits.concatenate(self._events))
        self._numbers, self._events, self._n_rows = [], [], 0


@contextlib.contextmanager
def write_events(
    path: Path, metadata: FileMetadata, create_table: Callable[[Any], EventTable]
) -> Iterator[_EventWriter]:
    """Write a ROOT file with uproot; it is complete when the block ends without an error.

    Parameters
    ----------
    path : Path
    metadata : FileMetadata
    create_table : callable
        Creates the TTree or RNTuple in an `uproot.WritableDirectory`.
    """
    import uproot

    # A file, not a path: uproot takes what follows a colon in a path for the name of an object.
    with path.open("w+b") as file, uproot.recreate(file, compression=uproot.ZSTD(_ZSTD_LEVEL)) as root_file:
        writer = _EventWriter(root_file, create_table(root_file), metadata)
        yield writer
        digest = writer.finish()
    with path.open("r+b") as file:
        fix_dates(file)
        fix_uuids(file, derive_uuid(digest, mark=UUID_MARK))


@dataclass(frozen=True, kw_only=True, eq=False)
class Entries:
    """Some consecutive entries of one column.

    Attributes
    ----------
    values : ndarray of integers
        One for each entry, or the joined lists.
    offsets : ndarray of int64, shape (entries + 1,), or None
        Where the list of each entry begins and ends among the values; None if an entry is one integer.
    """

    values: NDArray[np.generic]
    offsets: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.values) if self.offsets is None else len(self.offsets) - 1

    def select(self, start: int, stop: int) -> Entries:
        """Select entries; the values are views."""
        if self.offsets is None:
            return Entries(values=self.values[start:stop])
        offsets = self.offsets[start : stop + 1]
        return Entries(values=self.values[offsets[0] : offsets[-1]], offsets=offsets - offsets[0])


def flatten_entries(columns: dict[str, Entries], checker: EntryChecker) -> Iterator[Columns]:
    """Convert equally many entries of all columns to rows, at most `BLOCK_ROWS` at a time.

    Parameters
    ----------
    columns : dict of str to Entries
    checker : EntryChecker
        Gets the event numbers, unless an entry is a digit.

    Raises
    ------
    ContentError
        As `EntryChecker.add`.
    ValueError
        If the lists of an event differ in length.
    """
    lists = {name: columns[name] for name in LIST_COLUMNS}
    offsets = lists[LIST_COLUMNS[0]].offsets
    if offsets is None:  # an entry a digit
        flat = {name: column.values for name, column in columns.items()}
        for start in range(0, len(flat["event"]), BLOCK_ROWS):
            yield {name: values[start : start + BLOCK_ROWS] for name, values in flat.items()}
        return
    checker.add(columns["event"].values)
    n_rows = int(offsets[-1])
    for name, column in lists.items():
        other = column.offsets
        if other is None or not np.array_equal(other, offsets) or len(column.values) != n_rows:
            message = f"its lists {name} differ in length from the others of their event"
            raise ValueError(message)
    if np.any(np.diff(offsets) < 0):
        message = "its lists overlap"
        raise ValueError(message)
    for start in range(0, n_rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, n_rows)
        entry = np.searchsorted(offsets, np.arange(start, stop), side="right") - 1
        digits = {name: column.values[start:stop] for name, column in lists.items()}
        yield {"event": columns["event"].values[entry], **digits}
