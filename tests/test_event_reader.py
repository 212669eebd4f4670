"""Files of digits read event by event: the same digits, the same refusals, every event once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet
import pytest

from pxdbg_runtime import Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats import SUFFIXES, open_events, read_digits
from tests.digit_files import (
    COLUMNS,
    METADATA,
    PROVENANCE,
    SAMPLE,
    each_suffix,
    in_first,
    random_digits,
    renumbered,
    write,
    write_plainly,
)

if TYPE_CHECKING:
    from pathlib import Path


@each_suffix
def test_each_event_comes_once_and_in_order(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"digits{suffix}", [SAMPLE.of_event(3), SAMPLE.of_event(5)])
    reader = open_events(path)
    assert reader.provenance == PROVENANCE
    assert reader.event_numbers.dtype == np.int64  # NumPy 1's default on Windows is int32
    for _again in range(2):
        assert list(reader) == [SAMPLE.of_event(event) for event in (3, 4, 5, 6)]


@each_suffix
@pytest.mark.parametrize("events", [(), (3,), (6,), (3, 6), (4, 5), (3, 4, 5, 6)])
def test_events_without_digits_come_too(tmp_path: Path, suffix: str, events: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    parts = {event: random_digits(rng, 50, event) for event in events}
    read = list(open_events(write(tmp_path / f"digits{suffix}", parts.values())))
    assert read == [parts.get(event, Digits.empty()) for event in (3, 4, 5, 6)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_row_groups_need_not_be_events(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "whole.parquet", [SAMPLE])
    table = pyarrow.parquet.read_table(path)
    other = tmp_path / "other.parquet"
    pyarrow.parquet.write_table(table, other, row_group_size=size)
    read = list(open_events(other))
    assert read == [SAMPLE.of_event(event) for event in (3, 4, 5, 6)]
    assert Digits.concatenate(read) == read_digits(other).digits


@each_suffix
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("event", -2, "holds event from -2 to"),
        ("u_cell", 250, "holds u_cell from"),
        ("charge", 0, "holds charge from 0"),
        ("sensor_id", 1, "holds the VxdID 1, which is no sensor of the PXD: generate it again"),
    ],
)
def test_what_is_no_digit_is_refused(tmp_path: Path, suffix: str, column: str, value: int, expected: str) -> None:
    text = PROVENANCE.to_json()
    assert METADATA["schema"] == 1
    path = write_plainly(tmp_path / f"digits{suffix}", in_first(column, value), text)
    with pytest.raises(DigitFileError, match=expected):
        list(open_events(path))


@each_suffix
def test_what_cannot_be_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"gone{suffix}"
    with pytest.raises(DigitFileError, match="cannot be read: No such file"):
        open_events(path)
    path.write_bytes(b"PAR1 or not")
    with pytest.raises(DigitFileError, match="is not a digit file written by pxdbg-runtime, or is damaged"):
        open_events(path)
    with pytest.raises(DigitFileError, match="does not say how its digits were generated"):
        open_events(write_plainly(path, COLUMNS, "{}"))
    with pytest.raises(ArgumentValueError, match=r"must end in \.parquet or \.npz"):
        open_events(tmp_path / "digits.root")


def test_a_column_that_is_missing(tmp_path: Path) -> None:
    without = {name: column for name, column in COLUMNS.items() if name != "charge"}
    for suffix in SUFFIXES:
        path = write_plainly(tmp_path / f"digits{suffix}", without, PROVENANCE.to_json())
        with pytest.raises(DigitFileError, match=r"is not a digit file .*it has no (columns|arrays) charge"):
            open_events(path)


def test_damage_is_found_when_its_part_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    digits = random_digits(rng, 350_000, 3)
    path = write(tmp_path / "digits.parquet", [renumbered(digits, event) for event in (3, 4, 5, 6)])
    groups = pyarrow.parquet.ParquetFile(path).metadata
    assert groups.num_row_groups > 1
    offset = groups.row_group(groups.num_row_groups - 1).column(4).data_page_offset
    content = bytearray(path.read_bytes())
    content[offset + 2000] ^= 0x10
    path.write_bytes(content)
    events = iter(open_events(path))
    assert len(list(itertools.islice(events, 1))) == 1
    with pytest.raises(DigitFileError, match=r"is damaged|cannot be read"):
        list(events)
