"""The layouts of Parquet: what other tools see, whole events in row groups, and files that other tools rewrote."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import awkward as ak
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pxdbg_runtime import Digits
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import open_events, open_writer, read_digits
from pxdbg_runtime.formats.interface import BLOCK_ROWS
from pxdbg_runtime.formats.parquet_columns import _view_integers
from tests.digit_files import (
    METADATA,
    PROVENANCE,
    SAMPLE,
    digits_of,
    list_columns,
    random_digits,
    renumber,
    require_refusal,
)
from tests.test_rewritten_digit_files import rewrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from pxdbg_runtime.formats import Provenance

FLAT, EVENTS, COMPACT = LAYOUTS = ("parquet", "parquet-events", "parquet-compact")
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
LISTS: Final = ("sensor_id", "u_cell", "v_cell", "charge")
ROWS: Final = [
    {"event": 3, "sensor_id": [8480, 19520], "u_cell": [0, 249], "v_cell": [0, 767], "charge": [1, 255]},
    {"event": 4, "sensor_id": [], "u_cell": [], "v_cell": [], "charge": []},
    {"event": 5, "sensor_id": [8512, 8512, 16672], "u_cell": [17, 17, 100], "v_cell": [400, 401, 5]}
    | {"charge": [7, 22, 9]},
    {"event": 6, "sensor_id": [], "u_cell": [], "v_cell": [], "charge": []},
]
"""The events of SAMPLE."""


def write(path: Path, layout: str, parts: Iterable[Digits], provenance: Provenance = PROVENANCE) -> Path:
    with open_writer(path, provenance, format_name=layout) as writer:
        for digits in parts:
            writer.write(digits)
    return path


@each_layout
def test_no_value_may_be_missing_and_awkward_sees_no_options(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "bg.parquet", layout, [SAMPLE])
    schema = pyarrow.parquet.read_schema(path)
    fields = [*schema, *(field.type.value_field for field in schema if pa.types.is_list(field.type))]
    assert len(fields) == {FLAT: 5, EVENTS: 9, COMPACT: 4}[layout]
    assert not any(field.nullable for field in fields)
    assert json.loads(schema.metadata[b"pxdbg"]) == METADATA
    types = {
        FLAT: "5 * {event: int64, sensor_id: uint16, u_cell: uint16, v_cell: uint16, charge: uint8}",
        EVENTS: "4 * {event: int64, sensor_id: var * uint16, u_cell: var * uint16, v_cell: var * uint16, "
        "charge: var * uint8}",
        COMPACT: "5 * {event: int64, sensor_id: uint16, pixel_step: uint32, charge: uint8}",
    }
    assert str(ak.from_parquet(path).type) == types[layout]


def read_with_duckdb(path: Path) -> list[dict[str, Any]]:
    relation = duckdb.read_parquet(str(path))
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


def read_with_pandas(path: Path) -> list[dict[str, Any]]:
    frame = pd.read_parquet(path)
    return [
        {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


READERS: Final[dict[str, Callable[[Path], list[dict[str, Any]]]]] = {
    "pyarrow": lambda path: pyarrow.parquet.read_table(path).to_pylist(),
    "pandas": read_with_pandas,
    "polars": lambda path: pl.read_parquet(path).to_dicts(),
    "duckdb": read_with_duckdb,
    "awkward": lambda path: ak.from_parquet(path).to_list(),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_other_tools_read_every_layout(tmp_path: Path, read: Callable[[Path], list[dict[str, Any]]]) -> None:
    assert read(write(tmp_path / "events.parquet", EVENTS, [SAMPLE])) == ROWS
    flat = [dict(zip(COLUMN_DTYPES, row, strict=True)) for row in SAMPLE.to_structured().tolist()]
    assert read(write(tmp_path / "flat.parquet", FLAT, [SAMPLE])) == flat
    compact = read(write(tmp_path / "compact.parquet", COMPACT, [SAMPLE]))
    assert [row["pixel_step"] for row in compact] == [0, 249 * 768 + 767, 17 * 768 + 400, 1, 100 * 768 + 5]
    assert [row["charge"] for row in compact] == SAMPLE.charge.tolist()


def test_the_documented_lines_decode_the_compact_layout(tmp_path: Path) -> None:
    events = [random_digits(np.random.default_rng(1), 3000, event) for event in (3, 4, 6)]
    table = pd.read_parquet(write(tmp_path / "compact.parquet", COMPACT, events))
    pixel = table.groupby(["event", "sensor_id"])["pixel_step"].cumsum()
    u_cell, v_cell = pixel // 768, pixel % 768
    digits = Digits.concatenate(events)
    assert np.array_equal(u_cell, digits.u_cell)
    assert np.array_equal(v_cell, digits.v_cell)


@each_layout
def test_row_groups_hold_whole_events(tmp_path: Path, layout: str) -> None:
    """Written in parts that end within events; the second row group has more rows than pyarrow's own."""
    rng = np.random.default_rng(2)
    sizes = [0, 400_000, 650_000, 990_000, 200_000, 0]
    events = [random_digits(rng, size, event) for event, size in enumerate(sizes)]
    digits = Digits.concatenate(events)
    parts = [digits.select_rows(slice(start, start + 300_000)) for start in range(0, len(digits), 300_000)]
    provenance = replace(PROVENANCE, first_event=0, events=len(events))
    path = write(tmp_path / "bg.parquet", layout, parts, provenance)
    file = pyarrow.parquet.ParquetFile(path)
    groups = [file.read_row_group(group, ["event"])["event"] for group in range(file.num_row_groups)]
    assert [group.unique().to_pylist() for group in groups] == (
        [[0, 1, 2], [3, 4], [5]] if layout == EVENTS else [[1, 2], [3, 4]]
    )
    reader = open_events(path)
    assert list(reader) == events
    assert max(map(len, reader.read_blocks())) <= BLOCK_ROWS


@each_layout
def test_no_row_group_is_without_rows(tmp_path: Path, layout: str) -> None:
    """Spark 3.3 refuses a file that has one."""
    events = [digits_of([(event, 8480, 0, 0, 9)]) if event % 3 else Digits.empty() for event in range(3, 1003)]
    path = write(tmp_path / "many.parquet", layout, events, replace(PROVENANCE, events=1000))
    metadata = pyarrow.parquet.read_metadata(path)
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert rows == ([128] * 7 + [104] if layout == EVENTS else [128] * 5 + [26])
    assert list(open_events(path)) == events
    none = write(tmp_path / "none.parquet", layout, [Digits.empty()])
    assert pyarrow.parquet.read_metadata(none).num_row_groups == (1 if layout == EVENTS else 0)
    content = read_digits(none)
    assert (content.digits, content.n_events, content.is_checked) == (Digits.empty(), 4, True)


@settings(max_examples=40)  # of three files each
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6), seed=st.integers(0, 1000), block=st.integers(1, 50))
def test_blocks_of_any_length_come_back(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, block: int
) -> None:
    """Many blocks end within a sensor, whose pixels the compact layout counts from the block before."""
    rng = np.random.default_rng(seed)
    events = [random_digits(rng, size, event) for event, size in enumerate(sizes, 3)]
    # One sensor in half of the events, so that sensors follow themselves.
    digits = Digits.concatenate(events).of_sensor("2.3.1") if seed % 2 else Digits.concatenate(events)
    provenance = replace(PROVENANCE, events=len(sizes))
    folder = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pxdbg_runtime.formats.parquet_columns.BLOCK_ROWS", block)
        for layout in LAYOUTS:
            path = write(folder / "drawn.parquet", layout, [digits], provenance)
            assert Digits.concatenate(open_events(path).read_blocks()) == digits


def as_large_lists(table: pa.Table) -> pa.Table:
    fields = [
        pa.field(field.name, pa.large_list(pa.int32()) if field.name in LISTS else field.type) for field in table.schema
    ]
    return table.cast(pa.schema(fields))


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda table: table, {}),
        (lambda table: table.select([*LISTS[::-1], "event"]), {}),
        (lambda table: table.append_column("run", pa.array(["a"] * len(table))), {}),
        (as_large_lists, {"use_dictionary": False}),
        (lambda table: table, {"row_group_size": 1, "compression": "snappy"}),
        (lambda table: pa.concat_tables([table.slice(2), table.slice(0, 2)]), {"data_page_version": "2.0"}),
    ],
    ids=["as it is", "order", "more columns", "large lists", "row groups", "order of events"],
)
def test_rewritten_events(tmp_path: Path, change: Callable[[pa.Table], pa.Table], options: dict[str, Any]) -> None:
    path = write(tmp_path / "bg.parquet", EVENTS, [SAMPLE])
    kept = read_digits(
        rewrite(path, lambda table: change(table).replace_schema_metadata(table.schema.metadata), **options)
    )
    assert (kept.digits, kept.provenance, kept.n_events, kept.is_checked) == (SAMPLE, PROVENANCE, 4, False)
    lost = read_digits(rewrite(path, lambda table: change(table).replace_schema_metadata(None), **options))
    assert (lost.digits, lost.provenance, lost.n_events, lost.is_checked) == (SAMPLE, None, 2, False)


@pytest.mark.parametrize(
    ("order", "event"), [([0, 1, 2, 3, 4, 5, 6, 7], 3), ([3, 2, 6], 5), ([2, 0, 3, 6], 5), ([0, 1, 5, 6], 4)]
)
@pytest.mark.parametrize("row_group_size", [1, 100])
def test_jobs_of_equal_event_numbers_in_one_file(
    tmp_path: Path, order: list[int], event: int, row_group_size: int
) -> None:
    """Two seeds, of four events each, have no pixel in common; in the last case event 4 is without digits in both."""
    other = Digits(**{**list_columns(SAMPLE), "v_cell": (SAMPLE.v_cell + 2) % 768})
    paths = [
        write(tmp_path / f"{seed}.parquet", EVENTS, [digits], replace(PROVENANCE, seed=seed))
        for seed, digits in ((1, SAMPLE), (2, other))
    ]
    joined = pa.concat_tables(pyarrow.parquet.read_table(path) for path in paths).take(order)
    path = tmp_path / "joined.parquet"
    pyarrow.parquet.write_table(joined, path, row_group_size=row_group_size)
    require_refusal(path, f"holds two entries of event {event}, expected one: leave out what was merged twice")


def test_events_that_polars_and_duckdb_rewrote(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.parquet", EVENTS, [SAMPLE])
    pl.read_parquet(path).write_parquet(tmp_path / "polars.parquet")
    duckdb.read_parquet(str(path)).write_parquet(str(tmp_path / "duckdb.parquet"))
    for tool in ("polars", "duckdb"):
        content = read_digits(tmp_path / f"{tool}.parquet")
        assert (content.digits, content.provenance) == (SAMPLE, None)


def change_list(name: str, values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.schema.get_field_index(name), name, values)


U16: Final = pa.list_(pa.uint16())
OTHER_LENGTHS: Final = "the lists of an event must have one length, but differ"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_list("u_cell", pa.array([[0, 249], [], [17, 17, 100], [3]], U16)), OTHER_LENGTHS),
        (change_list("u_cell", pa.array([[0, 249, 17], [], [17, 100], []], U16)), OTHER_LENGTHS),
        (change_list("u_cell", pa.array([[0, 249], [], [17, None, 100], []], U16)), "u_cell has 1 empty values"),
        (change_list("u_cell", pa.array([[0, 249], None, [17, 17, 100], []], U16)), "u_cell has 1 empty values"),
        (change_list("event", pa.array([3, None, 5, 6], pa.int64())), "event has 1 empty values"),
        (change_list("u_cell", pa.array([1, 2, 3, 4])), "u_cell must hold lists of integers, but holds int64"),
        (change_list("u_cell", pa.array([["a"]] * 4)), "u_cell must hold lists of integers, but holds list<"),
        (change_list("u_cell", pa.array([[[1]]] * 4)), "u_cell must hold lists of integers, but holds list<"),
    ],
)
def test_lists_that_are_no_events(tmp_path: Path, change: Callable[[pa.Table], pa.Table], expected: str) -> None:
    path = write(tmp_path / "bg.parquet", EVENTS, [SAMPLE])
    require_refusal(rewrite(path, change), f"does not hold the columns of Digits: {expected}")


def test_an_invalid_value_in_a_list(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.parquet", EVENTS, [SAMPLE])
    change = change_list("v_cell", pa.array([[0, 768], [], [400, 401, 5], []], U16))
    require_refusal(rewrite(path, change), "holds v_cell from 0 to 768, expected 0 to 767")


@pytest.mark.parametrize(("n_events", "n_digits"), [(1, 8_000_000), (30, 10_000_000)])
def test_lists_that_claim_too_many_digits(tmp_path: Path, n_events: int, n_digits: int) -> None:
    """They take some kilobytes of the file, and would take hundreds of megabytes of memory at once."""
    offsets = np.full(n_events + 1, n_digits, dtype=np.int32)
    offsets[0] = 0
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ones(n_digits, dtype=np.uint8)))
    table = pa.table({"event": np.arange(n_events), **dict.fromkeys(LISTS, lists)})
    path = tmp_path / "bomb.parquet"
    pyarrow.parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 200_000
    before = pa.total_allocated_bytes()
    require_refusal(
        path, rf"claims [\d,]+ digits in a row group of {n_events} events and .* expected at most 7,680,000"
    )
    assert pa.total_allocated_bytes() <= before  # less, if something of an earlier test was freed


def test_a_compact_file_is_read_with_a_digest_alone(tmp_path: Path) -> None:
    """A row that is left out would move other pixels, without any sign of it."""
    path = write(tmp_path / "bg.parquet", COMPACT, [SAMPLE])
    expected = "is in the layout parquet-compact, whose pixels are right only while no row is missing, .* pxdbg convert"
    require_refusal(rewrite(path, lambda table: table), expected)
    require_refusal(rewrite(path, lambda table: table.replace_schema_metadata(None)), expected)
    whole = pyarrow.parquet.ParquetFile(path).read()  # pyarrow keeps the digest in this way
    copy = tmp_path / "copy.parquet"
    pyarrow.parquet.write_table(whole, copy)
    content = read_digits(copy)
    assert (content.digits, content.provenance, content.is_checked) == (SAMPLE, PROVENANCE, True)
    keep = [number != 2 for number in range(5)]
    pyarrow.parquet.write_table(whole.filter(pa.array(keep)), copy)
    require_refusal(copy, "holds other rows than those that its digest was computed from")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([0, 192_000, 0, 1, 5], "pixel_step from 0 to 192000, expected 0 to 191999"),
        ([0, -1, 0, 1, 5], "pixel_step from -1 to 5, expected 0 to 191999"),
        ([0, 9, 191_999, 191_999, 5], "holds u_cell from 0 to 499, expected 0 to 249"),
    ],
)
def test_steps_that_lead_to_no_pixel(tmp_path: Path, steps: list[int], expected: str) -> None:
    path = write(tmp_path / "bg.parquet", COMPACT, [SAMPLE])
    whole = pyarrow.parquet.ParquetFile(path).read()
    column = pa.array(steps, pa.int64())
    pyarrow.parquet.write_table(whole.set_column(2, "pixel_step", column), path)
    require_refusal(path, expected)


@pytest.mark.parametrize("layout", [EVENTS, COMPACT])
@pytest.mark.slow
def test_a_flipped_byte_is_found_or_changes_nothing(tmp_path: Path, layout: str) -> None:
    path = write(tmp_path / "bg.parquet", layout, [SAMPLE])
    whole = path.read_bytes()
    n_found = n_read = 0
    mark = whole.index(b"pxdbg_digest\n")  # without it the digest is not compared
    for place in set(range(0, len(whole), 3)) - set(range(mark, mark + 13)):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            found = read_digits(path)
        except DigitFileError:
            n_found += 1
            continue
        n_read += 1
        assert (found.digits, found.provenance, found.is_checked) == (SAMPLE, PROVENANCE, True), f"byte {place}"
    assert n_found > n_read > 0


@each_layout
def test_forty_large_events_take_little_memory(tmp_path: Path, layout: str) -> None:
    """Forty events of 100,000 digits are 60 MB; a row group of a million rows is 15 MB."""
    event = random_digits(np.random.default_rng(1), 100_000, 0)
    before = pa.total_allocated_bytes()
    peaks = []

    def watch(parts: Iterable[Digits]) -> Iterator[Digits]:
        for digits in parts:
            yield digits
            peaks.append(pa.total_allocated_bytes() - before)

    provenance = replace(PROVENANCE, first_event=0, events=40)
    path = write(tmp_path / "bg.parquet", layout, watch(renumber(event, number) for number in range(40)), provenance)
    assert sum(map(len, watch(open_events(path).read_blocks()))) == 4_000_000
    assert len(peaks) > 60
    assert max(peaks) < 40_000_000


def test_writing_and_reading_parquet_does_not_import_pandas(tmp_path: Path) -> None:
    """Pandas, if it is installed, would take 50 MB and delay the end of a command."""
    with open_writer(tmp_path / "in.npz", PROVENANCE) as writer:
        writer.write(SAMPLE)
    script = (
        "import sys\nfrom pathlib import Path\nfrom pxdbg_runtime.formats import open_events, open_writer\n"
        "reader = open_events(Path('in.npz'))\n"
        f"for layout in {LAYOUTS}:\n"
        "    with open_writer(Path(f'{layout}.parquet'), reader.provenance, format_name=layout) as writer:\n"
        "        for digits in reader:\n            writer.write(digits)\n"
        "    assert list(open_events(Path(f'{layout}.parquet'))) == list(reader)\n"
        "print('pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
    assert [read_digits(tmp_path / f"{layout}.parquet").digits == SAMPLE for layout in LAYOUTS] == [True] * 3


@pytest.mark.parametrize("kind", ["int8", "uint16", "int64"])
def test_a_part_of_an_arrow_array_is_viewed(kind: str) -> None:
    array = pa.array([1, 2, 3, 4], kind)
    for part in (array, array[1:3], array[2:2]):
        np.testing.assert_array_equal(_view_integers(part), np.array(part.to_pylist(), kind), strict=True)
