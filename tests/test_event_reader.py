"""Digit files read event by event: every event comes once, in order."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet
import pytest

from pxdbg_runtime import Digits
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import open_events, read_digits
from tests.digit_files import (
    PROVENANCE,
    SAMPLE,
    each_suffix,
    random_digits,
    renumber,
    write,
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


def test_damage_is_found_when_its_part_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    digits = random_digits(rng, 350_000, 3)
    path = write(tmp_path / "digits.parquet", [renumber(digits, event) for event in (3, 4, 5, 6)])
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
