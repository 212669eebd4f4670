"""Digit files that other tools wrote or rewrote are read if they have the columns; their provenance may be unknown."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import uproot
from msgspec.structs import replace

from pxdbg_runtime import Digits
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.formats import open_events, read_digits, scanning
from tests.digit_files import (
    COLUMNS,
    PROVENANCE,
    SAMPLE,
    each_suffix,
    in_first,
    list_columns,
    random_digits,
    require_refusal,
    write,
    write_plainly,
)
from tests.test_command_line import invoke, require_failure, words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

NAMES: Final = list(COLUMN_DTYPES)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> Path:  # noqa: ANN401
    """Read a Parquet file with pyarrow and write it changed, as other tools do."""
    other = path.with_name(f"rewritten-{path.name}")
    pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(path, partitioning=None)), other, **options)
    return other


@pytest.mark.parametrize("folder", ["event=5", "charge=high", "u_cell=1/v_cell=2"])
def test_the_name_of_a_folder_is_no_column(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    path = write(tmp_path / folder / "bg.parquet", [SAMPLE])
    assert read_digits(path).digits == SAMPLE
    assert Digits.concatenate(open_events(path)) == SAMPLE
    assert "5 digits" in invoke("show", path).stdout
    other = rewrite(path, lambda table: table.replace_schema_metadata(None).select(NAMES))
    assert read_digits(other).digits == SAMPLE


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda table: table, {}),
        (lambda table: table.select(NAMES[::-1]), {}),
        (lambda table: table.append_column("layer", pa.array(["a"] * len(table))), {}),
        (lambda table: table.cast(pa.schema([(name, pa.int64()) for name in NAMES])), {}),
        (lambda table: table.cast(pa.schema([(name, pa.int32()) for name in NAMES])), {"use_dictionary": False}),
        (lambda table: pa.table([table[name].dictionary_encode() for name in NAMES], NAMES), {}),
        (lambda table: table, {"row_group_size": 2, "compression": "snappy"}),
        (lambda table: table, {"data_page_version": "2.0", "compression": "none"}),
    ],
    ids=["as it is", "order", "more columns", "int64", "int32", "dictionary", "row groups", "pages"],
)
def test_parquet_of_other_tools(
    tmp_path: Path, change: Callable[[pa.Table], pa.Table], options: dict[str, Any]
) -> None:
    path = write(tmp_path / "bg.parquet", [SAMPLE])
    survived = read_digits(
        rewrite(path, lambda table: change(table).replace_schema_metadata(table.schema.metadata), **options)
    )
    assert survived.digits == SAMPLE
    assert (survived.provenance, survived.n_events, survived.is_checked) == (PROVENANCE, 4, False)
    lost = read_digits(rewrite(path, lambda table: change(table).replace_schema_metadata(None), **options))
    assert lost.digits == SAMPLE
    # Of the four events those without digits cannot be seen.
    assert (lost.provenance, lost.n_events, lost.is_checked) == (None, 2, False)


def test_npz_of_other_tools(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.npz", [SAMPLE])
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **arrays)
    found = read_digits(path)
    assert (found.digits, found.provenance, found.is_checked) == (SAMPLE, PROVENANCE, False)
    wide: dict[str, Any] = {name: arrays[name].astype(">i8" if name == "event" else np.int64) for name in NAMES[::-1]}
    np.savez_compressed(path, **wide, more=np.zeros((2, 2)))
    found = read_digits(path)
    assert (found.digits, found.provenance, found.n_events) == (SAMPLE, None, 2)


def read_whole(path: Path) -> pa.Table:
    """Read a table with all metadata of the file, the digest among them."""
    table = pyarrow.parquet.ParquetFile(path).read()
    assert b"pxdbg_digest" in (table.schema.metadata or {})
    return table


def test_a_digest_that_another_tool_copied_is_not_trusted(tmp_path: Path) -> None:
    path = write(tmp_path / "bg.parquet", [SAMPLE])
    for table in (read_whole(path), read_whole(path).slice(1)):
        copied = tmp_path / "copied.parquet"
        pyarrow.parquet.write_table(table, copied)
        content = read_digits(copied)
        assert (len(content.digits), content.is_checked) == (len(table), False)


@pytest.mark.parametrize("read_table", [pyarrow.parquet.read_table, read_whole])
def test_three_jobs_in_one_file(tmp_path: Path, read_table: Callable[[Path], pa.Table]) -> None:
    """Concatenated by pyarrow, which keeps the metadata of the first, or by a tool that keeps none."""
    rng = np.random.default_rng(1)
    jobs = [[random_digits(rng, 400, event) for event in range(first, first + 3)] for first in (3, 6, 9)]
    paths = [
        write(tmp_path / f"{number}.parquet", job, replace(PROVENANCE, first_event=3 + 3 * number, events=3))
        for number, job in enumerate(jobs)
    ]
    events = [digits for job in jobs for digits in job]
    tables = [read_table(path) for path in paths]
    merged = tmp_path / "merged.parquet"
    pyarrow.parquet.write_table(pa.concat_tables(tables), merged)
    reader = open_events(merged)
    assert list(reader) == events
    assert (reader.provenance, reader.n_events, reader.is_checked) == (None, 9, False)
    assert reader.remark == "its metadata describe the events 3 to 5 alone, but it holds digits of 3 to 11"
    # In another order, still in one file.
    pyarrow.parquet.write_table(
        pa.concat_tables([tables[2], tables[0], tables[1]]).replace_schema_metadata(None), merged
    )
    reader = open_events(merged)
    assert list(reader) == events
    assert reader.event_numbers.tolist() == list(range(3, 12))
    assert reader.remark == "it has no metadata"


def test_rows_that_metadata_cannot_be_of(tmp_path: Path) -> None:
    """Four events, of which one has thousands of digits and the others none: rows are missing."""
    rng = np.random.default_rng(2)
    path = write(tmp_path / "bg.parquet", [random_digits(rng, 3000, 3), random_digits(rng, 3000, 5)])
    assert open_events(path).provenance == PROVENANCE  # its digest says so
    reader = open_events(rewrite(path, lambda table: table))
    assert (reader.provenance, reader.n_events) == (None, 2)
    assert reader.remark == "its metadata describe 4 events, but it holds digits of 2"
    # Of one sensor, whose events are smaller.
    few = write(tmp_path / "few.parquet", [random_digits(rng, 100, 3), random_digits(rng, 100, 5)])
    assert open_events(rewrite(few, lambda table: table)).provenance is None


@pytest.mark.parametrize("format_name", ["parquet-events", "hdf5", "ttree", "rntuple"])
def test_a_selection_of_the_events_that_a_file_lists(tmp_path: Path, format_name: str) -> None:
    """The events left out may have had no digits: the events that have some do not show that any are missing."""
    suffix = {"hdf5": ".h5", "ttree": ".root", "rntuple": ".root"}.get(format_name, ".parquet")
    path = write(tmp_path / f"bg{suffix}", [SAMPLE], format_name=format_name)
    for n_kept, provenance, n_events in ((4, PROVENANCE, 4), (3, None, 2)):
        reader = open_events(keep_events(path, format_name, n_kept))
        assert (reader.provenance, reader.n_events, reader.is_checked) == (provenance, n_events, False)
        assert reader.read() == SAMPLE
        assert reader.remark == ("" if provenance else "its metadata describe 4 events, but it lists 3")


def keep_events(path: Path, format_name: str, n_kept: int) -> Path:
    """Write the first events of a file into another one, with its metadata, as other tools do."""
    other = path.with_stem(f"first-{n_kept}")
    if format_name == "parquet-events":
        pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).slice(0, n_kept), other)
    elif format_name == "hdf5":
        with h5py.File(path) as old, h5py.File(other, "w") as new:
            new.attrs["pxdbg"] = old.attrs["pxdbg"]
            for name, column in old.items():
                new[name] = column[: {"event": n_kept, "offset": n_kept + 1}.get(name)]
    else:
        with uproot.open(path) as old, uproot.recreate(other) as new:
            make = new.mktree if format_name == "ttree" else new.mkrntuple
            events = old["digits"].arrays(NAMES)[:n_kept]
            columns = {name: ak.to_packed(events[name]) for name in NAMES}
            table = make("digits", {name: str(column.type.content) for name, column in columns.items()})
            table.extend(columns if format_name == "ttree" else ak.zip(columns, depth_limit=1))
            new["pxdbg"] = str(old["pxdbg"])
    return other


@each_suffix
def test_unsorted_rows_are_sorted_part_by_part(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order = [4, 1, 0, 3, 2]
    columns = {name: column[order] for name, column in COLUMNS.items()}
    path = write_plainly(tmp_path / f"bg{suffix}", columns, PROVENANCE.to_json())
    assert read_digits(path).digits == SAMPLE
    assert list(open_events(path)) == [SAMPLE.of_event(event) for event in (3, 4, 5, 6)]
    monkeypatch.setattr(scanning, "_ROWS_PER_PASS", 2)
    assert list(open_events(path).read_blocks()) == [SAMPLE.of_event(3), SAMPLE.of_event(5)]
    assert read_digits(path).digits == SAMPLE
    monkeypatch.setattr(scanning, "_MAX_UNSORTED_ROWS", 4)
    require_refusal(
        path, r"not ordered by .* order them with the tool that wrote the file \(ORDER BY event, sensor_id, u_cell"
    )


@each_suffix
@pytest.mark.parametrize("order", [[0, 1, 1, 2, 3, 4], [0, 1, 2, 3, 4, 4], [2, 0, 1, 2, 3, 4]])
def test_digits_that_come_twice(tmp_path: Path, suffix: str, order: list[int]) -> None:
    columns = {name: column[order] for name, column in COLUMNS.items()}
    columns["charge"] = np.arange(1, 7, dtype=np.uint8)
    path = write_plainly(tmp_path / f"bg{suffix}", columns, PROVENANCE.to_json())
    expected = "holds a digit twice: the same event, sensor, u cell and v cell: leave out what was merged twice"
    require_refusal(path, expected)
    require_failure(invoke("show", path), 1, expected)


@each_suffix
def test_charges_below_the_threshold_of_the_file(tmp_path: Path, suffix: str) -> None:
    path = write_plainly(tmp_path / f"bg{suffix}", COLUMNS, replace(PROVENANCE, min_charge=7).to_json())
    expected = "holds charges from 1 ADU on, below its own threshold of 7 ADU: generate it again"
    require_refusal(path, expected)
    require_failure(invoke("show", path), 1, expected)
    # At the threshold, and without one that is known, there is nothing to refuse.
    columns: dict[str, NDArray[Any]] = in_first("charge", 7)
    assert len(read_digits(write_plainly(path, columns, replace(PROVENANCE, min_charge=7).to_json())).digits) == 5
    assert len(read_digits(write_plainly(path, COLUMNS, None)).digits) == 5


@each_suffix
def test_a_file_that_tells_of_no_event(tmp_path: Path, suffix: str) -> None:
    none = {name: column[:0] for name, column in COLUMNS.items()}
    require_refusal(
        write_plainly(tmp_path / f"bg{suffix}", none, None), "holds no digits, and no metadata that name its events"
    )
    content = read_digits(write_plainly(tmp_path / f"bg{suffix}", none, PROVENANCE.to_json()))
    assert (len(content.digits), content.n_events) == (0, 4)


def test_show_and_plot_what_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        sys.modules["pxdbg_runtime.command_line.plot"],
        "save_event",
        lambda _digits, _path, *, title, **_sensors: titles.append(title),
    )
    path = write_plainly(tmp_path / "bg.npz", COLUMNS, None)
    result = invoke("show", path)
    assert (result.exit_code, result.stderr) == (0, "")
    text = words(result.stdout)
    assert "2 events, 5 digits of 1 ADU or more" in text
    assert "provenance: unknown (it has no metadata)" in text
    assert "only events with digits are counted: others cannot be seen" in text
    assert "digest: not checked (an older release or another tool wrote the file)" in text
    picture = tmp_path / "event.svg"
    assert invoke("plot", path, "--output", picture).exit_code == 0
    assert titles == ["PXD background, event 3: provenance unknown"]
    # Event 4 may have been without digits, or not have been at all.
    require_failure(invoke("plot", path, "--output", picture, "--event", 4), 2, "must be one of those in")


def test_validate_what_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.validation.page.draw_pictures", lambda *_arguments: ())
    rng = np.random.default_rng(4)
    digits = Digits.concatenate(random_digits(rng, 2000, event) for event in (3, 9))
    columns = list_columns(digits)
    path = write_plainly(tmp_path / "bg.parquet", columns, None)
    result = invoke("validate", path, "--report", tmp_path / "out.html")
    assert result.exit_code == 0, result.output
    assert "bg (provenance unknown)" in result.stderr
    assert "unknown; events without digits are not counted" in (tmp_path / "out.html").read_text(encoding="utf-8")
    high = {name: column[columns["charge"] >= 9] for name, column in columns.items()}
    write_plainly(path, high, None)
    require_failure(invoke("validate", path, "--report", tmp_path / "out.html"), 2, "ask for --min-charge 9")


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    table = pa.table([*COLUMNS.values(), COLUMNS["charge"]], names=[*NAMES, "charge"])
    pyarrow.parquet.write_table(table, tmp_path / "bg.parquet")
    require_refusal(tmp_path / "bg.parquet", r"it has 2 columns charge, expected one")
