"""Read the rows of a file, and scan a file without a digest: which events it holds, and whether it is sorted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats.damage import refuse_rows, report_damage
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.row_checks import RowChecker, RowError, convert_columns, sort_rows
from pxdbg_runtime.formats.whole_events import find_event_starts
from pxdbg_runtime.sensors import N_SENSORS, PIXELS_PER_SENSOR

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.interface import FormatReader

__all__ = ["RowScan", "read_rows", "read_sorted_rows", "scan_rows"]

_ROWS_PER_PASS: Final = 5_000_000
"""Unsorted rows are sorted so many at a time, in some 300 MB; for each such part the whole file is read again."""
_MAX_UNSORTED_ROWS: Final = 50_000_000
_PIXELS: Final = N_SENSORS * PIXELS_PER_SENSOR


@dataclass(frozen=True, kw_only=True, eq=False)
class RowScan:
    """The result of a scan.

    Attributes
    ----------
    rows : int
    events : ndarray of int64
        Numbers of the events that have a digit, ascending.
    vxd_ids : ndarray of uint16
        VxdIDs of the sensors that have a digit, ascending.
    passes : tuple of (int, int)
        First and last event of each part in which an unsorted file is read; empty for a sorted file.
    """

    rows: int
    events: NDArray[np.int64]
    vxd_ids: NDArray[np.uint16]
    passes: tuple[tuple[int, int], ...]


def read_rows(path: Path, reader: FormatReader) -> Iterator[Digits]:
    """Read the rows of a file in blocks; each row is a digit of the PXD, and their order is that of the file.

    Raises
    ------
    DigitFileError
        If the file is damaged, or holds what is no digit.
    """
    with report_damage(path):
        for columns in reader.read_blocks():
            try:
                digits = convert_columns(columns)
            except RowError as error:
                raise refuse_rows(path, error) from None
            yield digits


def read_sorted_rows(path: Path, reader: FormatReader, passes: tuple[tuple[int, int], ...]) -> Iterator[Digits]:
    """Read an unsorted file in order, part by part; raises as `read_rows`."""
    for first, last in passes:
        yield sort_rows(
            Digits.concatenate(
                block.select_rows((block.event >= first) & (block.event <= last)) for block in read_rows(path, reader)
            )
        )


def scan_rows(path: Path, reader: FormatReader) -> RowScan:
    """Read all rows once, in bounded memory.

    Raises
    ------
    DigitFileError
        If the file is damaged, holds what is no digit, a digit twice, or too many unsorted rows or events.
    """
    n_rows = 0
    events, counts = np.empty((2, 0), dtype=np.int64)
    has_digits = np.zeros(1 << 16, dtype=bool)
    is_sorted = True
    checker = RowChecker(None)
    for digits in read_rows(path, reader):
        if not len(digits):
            continue
        n_rows += len(digits)
        has_digits[digits.sensor_id] = True
        events, counts = _count_events(events, counts, digits)
        if len(events) > MAX_FILE_EVENTS:
            message = f"{path} holds digits of more than {MAX_FILE_EVENTS:,} events: split it into several files."
            raise DigitFileError(path, message)
        if is_sorted:
            try:
                checker.check(digits)
            except RowError as error:
                # At once: a small file may hold one row hundreds of millions of times.
                if error.is_duplicate:
                    raise refuse_rows(path, error) from None
                is_sorted = False
        if counts.max() > _PIXELS:
            raise refuse_rows(path, RowError("more digits of an event than the PXD has pixels", is_duplicate=True))
        if not is_sorted and n_rows > _MAX_UNSORTED_ROWS:
            message = (
                f"{path} holds digits that are not ordered by event, sensor, u cell, v cell, and more than "
                f"{_MAX_UNSORTED_ROWS:,}, the most that are sorted here: order them with the tool that wrote the file "
                "(ORDER BY event, sensor_id, u_cell, v_cell), or read the files that it was merged from one by one."
            )
            raise DigitFileError(path, message)
    passes = () if is_sorted else tuple(_split_into_passes(events.tolist(), counts.tolist()))
    vxd_ids = np.flatnonzero(has_digits).astype(np.uint16)
    return RowScan(rows=n_rows, events=events, vxd_ids=vxd_ids, passes=passes)


def _count_events(
    events: NDArray[np.int64], counts: NDArray[np.int64], digits: Digits
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add digits to the counts of events; `numpy.unique` takes seconds for a million events."""
    starts = find_event_starts(digits.event)
    numbers = np.concatenate([events, digits.event[starts]])
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    lengths = np.concatenate([counts, np.diff(starts, append=len(digits))])[order]
    firsts = find_event_starts(numbers)
    return numbers[firsts], np.add.reduceat(lengths, firsts)


def _split_into_passes(events: list[int], counts: list[int]) -> Iterator[tuple[int, int]]:
    """Join consecutive events while their rows are few enough to be sorted at once."""
    first, n_rows = events[0], 0
    last = first
    for event, count in zip(events, counts, strict=True):
        if n_rows and n_rows + count > _ROWS_PER_PASS:
            yield first, last
            first, n_rows = event, 0
        last = event
        n_rows += count
    yield first, last
