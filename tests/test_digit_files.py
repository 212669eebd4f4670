"""Digit files: digits survive writing and reading, other tools can read them, and a failure leaves no file behind.

Bad files are in test_bad_digit_files.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pxdbg_runtime import N_U_CELLS, N_V_CELLS, SENSORS, Digits, Generator, __version__
from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    DigitFileError,
    MissingPackageError,
    OutputError,
)
from pxdbg_runtime.formats import (
    FORMATS,
    FileMetadata,
    Provenance,
    describe_generation,
    find_format,
    open_events,
    open_writer,
    read_digits,
)
from tests.digit_files import (
    ANY_SUFFIX,
    METADATA,
    PROVENANCE,
    SAMPLE,
    Hit,
    digits_of,
    each_suffix,
    in_first,
    names_in,
    random_digits,
    renumber,
    write,
)
from tests.isolation import limit_file_size

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile


def write_sample(path: Path) -> Path:
    return write(path, [SAMPLE])


@st.composite
def events_of_hits(draw: st.DrawFn) -> tuple[int, list[list[Hit]]]:
    """Draw the number of the first event, and the hits of consecutive events, some without any."""
    first_event = draw(st.sampled_from([0, 3, MAX_EVENT - 4]))
    pixels = st.tuples(
        st.sampled_from([sensor.vxd_id for sensor in SENSORS]),
        st.integers(0, N_U_CELLS - 1),
        st.integers(0, N_V_CELLS - 1),
    )
    of_one_event = st.dictionaries(pixels, st.integers(1, 255), max_size=20)
    events = draw(st.lists(of_one_event, min_size=1, max_size=5))
    return first_event, [
        [(event, *pixel, charge) for pixel, charge in sorted(hits.items())]
        for event, hits in enumerate(events, first_event)
    ]


@each_suffix
@given(drawn=events_of_hits())
@pytest.mark.slow
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, drawn: tuple[int, list[list[Hit]]]
) -> None:
    first_event, events = drawn
    provenance = replace(PROVENANCE, first_event=first_event, events=len(events))
    path = write(tmp_path_factory.getbasetemp() / f"drawn{suffix}", map(digits_of, events), provenance)
    content = read_digits(path)
    assert content.digits.to_structured().tolist() == [hit for hits in events for hit in hits]
    assert content.provenance == provenance


@each_suffix
def test_many_digits_come_back(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(5)
    parts = [random_digits(rng, n_hits, event) for event, n_hits in [(3, 70_000), (4, 0), (5, 1), (6, 30_000)]]
    content = read_digits(write(tmp_path / f"many{suffix}", parts))
    assert content.digits == Digits.concatenate(parts)
    assert not content.digits.charge.flags.writeable


@each_suffix
@pytest.mark.parametrize("parts", [[], [Digits.empty()], [Digits.empty(), Digits.empty()]])
def test_a_file_may_be_without_digits(tmp_path: Path, suffix: str, parts: list[Digits]) -> None:
    content = read_digits(write(tmp_path / f"none{suffix}", parts))
    assert (content.digits, content.provenance) == (Digits.empty(), PROVENANCE)


@each_suffix
@pytest.mark.parametrize("seed", [MIN_SEED, MAX_SEED])
def test_extreme_numbers_come_back(tmp_path: Path, suffix: str, seed: int) -> None:
    provenance = replace(PROVENANCE, seed=seed, first_event=MAX_EVENT, events=1, min_charge=255, random_stream="torch")
    digits = digits_of([(MAX_EVENT, 8480, 1, 2, 255)])
    content = read_digits(write(tmp_path / f"extreme{suffix}", [digits], provenance))
    assert (content.digits, content.provenance) == (digits, provenance)


def test_parquet_as_pyarrow_sees_it(tmp_path: Path) -> None:
    parts = [SAMPLE.of_event(3), Digits.empty(), SAMPLE.of_event(5)]
    file = pyarrow.parquet.ParquetFile(write(tmp_path / "plain.parquet", parts))
    schema = file.schema_arrow
    assert schema.names == ["event", "sensor_id", "u_cell", "v_cell", "charge"]
    assert schema.types == [pa.int64(), pa.uint16(), pa.uint16(), pa.uint16(), pa.uint8()]
    assert json.loads(schema.metadata[b"pxdbg"]) == METADATA
    table = file.read()
    assert table.column("sensor_id").to_pylist() == [8480, 19520, 8512, 8512, 16672]
    assert table.column("charge").to_pylist() == [1, 255, 7, 22, 9]


def test_parquet_has_no_row_group_without_rows_and_no_column_with_gaps(tmp_path: Path) -> None:
    """Spark 3.3 refuses empty row groups; awkward gives nullable columns another type."""
    events = [digits_of([(event, 8480, 0, 0, 9)]) if event % 3 else Digits.empty() for event in range(3, 1003)]
    path = write(tmp_path / "many.parquet", events, replace(PROVENANCE, events=1000))
    metadata = pyarrow.parquet.read_metadata(path)
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    # 666 events have a digit, and 128 of them share a row group.
    assert rows == [128] * 5 + [26]
    assert not any(field.nullable for field in pyarrow.parquet.read_schema(path))
    assert list(open_events(path)) == events
    none = write(tmp_path / "none.parquet", [Digits.empty()] * 4)
    assert pyarrow.parquet.read_metadata(none).num_row_groups == 0


def test_npz_as_numpy_sees_it(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.npz", [SAMPLE.of_event(3), Digits.empty(), SAMPLE.of_event(5)])
    with np.load(path, allow_pickle=False) as content:
        assert content.files == ["event", "sensor_id", "u_cell", "v_cell", "charge", "pxdbg"]
        dtypes = [content[name].dtype.str for name in COLUMN_DTYPES]
        assert dtypes == ["<i8", "<u2", "<u2", "<u2", "|u1"]
        assert content["event"].tolist() == [3, 3, 5, 5, 5]
        assert content["v_cell"].tolist() == [0, 767, 400, 401, 5]
        assert json.loads(str(content["pxdbg"])) == METADATA


@each_suffix
@pytest.mark.parametrize(
    ("parts", "changes", "expected"),
    [
        ([SAMPLE.of_event(5), SAMPLE.of_event(3)], {}, "digits that are not ordered by event, sensor, u"),
        ([SAMPLE, SAMPLE.of_event(5)], {}, "digits that are not ordered"),
        ([digits_of([(3, 8480, 0, 0, 1)])] * 2, {}, "a digit twice: the same event, sensor, u cell"),
        ([SAMPLE], {"first_event": 4}, "events 3 to 5, expected 4 to 7 by its own metadata"),
        ([SAMPLE], {"events": 2}, "events 3 to 5, expected 3 to 4 by its own metadata"),
        ([SAMPLE], {"min_charge": 2}, "charges from 1 ADU on, below its own threshold of 2 ADU"),
        ([], {"events": 1_000_001}, "would hold 1,000,001 events, expected at most 1,000,000: split them"),
    ],
)
def test_what_would_not_be_read_is_not_written(
    tmp_path: Path, suffix: str, parts: list[Digits], changes: dict[str, int], expected: str
) -> None:
    with pytest.raises(ArgumentValueError, match=f"was given {expected}" if parts else expected):
        write(tmp_path / f"bg{suffix}", parts, replace(PROVENANCE, **changes))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", ["npz", "parquet-compact"])
@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("event", -3, "event from -3 to 5, expected 0 to 9223372036854775807"),
        ("sensor_id", 12345, "the VxdID 12345, which is no sensor of the PXD"),
        ("u_cell", 5000, "u_cell from 17 to 5000, expected 0 to 249"),
        ("v_cell", 900, "v_cell from 5 to 900, expected 0 to 767"),
        ("charge", 0, "charge from 0 to 255, expected 1 to 255"),
    ],
)
def test_what_is_no_digit_is_not_written(tmp_path: Path, name: str, column: str, value: int, expected: str) -> None:
    """In the compact layout a cell that does not exist would be read as another pixel."""
    path = tmp_path / f"bg{FORMATS[name].suffixes[0]}"
    with pytest.raises(ArgumentValueError, match=f"bg.* was given {expected}"):
        write(path, [Digits(**in_first(column, value))], format_name=name)
    assert names_in(tmp_path) == []


@each_suffix
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"events": 0}, "events must be an integer >= 1, but is 0"),
        ({"first_event": -5}, "first_event must be an integer >= 0, but is -5"),
        ({"first_event": MAX_EVENT}, f"events must end at {MAX_EVENT}, but 4 events from {MAX_EVENT} go beyond"),
        ({"min_charge": 0}, "min_charge must be an integer >= 1, but is 0"),
        ({"model": ""}, "model must be text that is not empty"),
        ({"graph_sha256": "x"}, "graph_sha256 must be a SHA-256 of 64 hexadecimal digits"),
        ({"sensors": ("2.12.2", "1.1.1")}, "sensors must be null or names of different sensors, ordered by index"),
    ],
)
def test_provenance_that_would_not_be_read_is_not_written(
    tmp_path: Path, suffix: str, changes: dict[str, Any], expected: str
) -> None:
    expected = f"bg{suffix} would not say how its digits were generated: {expected}"
    with pytest.raises(ArgumentValueError, match=expected) as caught:
        write(tmp_path / f"bg{suffix}", [SAMPLE], replace(PROVENANCE, **changes))
    assert caught.value.argument == "provenance"
    assert names_in(tmp_path) == []


def test_provenance_of_no_json_is_not_written(tmp_path: Path) -> None:
    expected = (
        "bg.npz would not say how its digits were generated: 'object' object cannot be interpreted as an integer."
    )
    with pytest.raises(ArgumentTypeError, match=expected) as caught:
        write(tmp_path / "bg.npz", [SAMPLE], replace(PROVENANCE, model=object()))
    assert caught.value.argument == "provenance"
    assert names_in(tmp_path) == []


def test_integers_of_numpy_are_written_as_integers(tmp_path: Path) -> None:
    seed = np.int64(2**40)
    write(tmp_path / "bg.npz", [SAMPLE], replace(PROVENANCE, seed=seed))
    assert read_digits(tmp_path / "bg.npz").provenance == replace(PROVENANCE, seed=2**40)
    later = replace(PROVENANCE, seed=3, first_event=PROVENANCE.last_event + 1)
    several = FileMetadata(jobs=(replace(PROVENANCE, seed=seed), later))
    assert [job.seed for job in FileMetadata.from_json(several.to_json()).jobs] == [2**40, 3]


@pytest.mark.parametrize("events", [range(0), range(5, 5), range(0, 10, 2), range(5, 0, -1)])
def test_events_that_no_provenance_describes(latent_graph: GraphFile, events: range) -> None:
    generator = Generator(latent_graph.path, provider="cpu")
    with pytest.raises(ArgumentValueError, match="events must be consecutive and at least one") as caught:
        describe_generation(generator, events)
    assert caught.value.argument == "events"


def test_provenance_describes_the_generator(latent_graph: GraphFile) -> None:
    generator = Generator(latent_graph.path, provider="cpu", seed=2, random_stream="torch", min_charge=9)
    assert describe_generation(generator, range(5, 8)) == Provenance(
        model="tiny",
        nature="checkpoint",
        provenance="Made for a test.",
        precision="float32",
        graph_sha256=latent_graph.sha256,
        seed=2,
        random_stream="torch",
        first_event=5,
        events=3,
        min_charge=9,
        provider="CPUExecutionProvider",
        version=__version__,
    )


@each_suffix
def test_a_new_file_takes_the_place_of_the_old(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"digits{suffix}", [SAMPLE])
    with open_writer(path, PROVENANCE) as writer:
        writer.write(SAMPLE.of_event(5))
        assert read_digits(path).digits == SAMPLE
    assert read_digits(path).digits == SAMPLE.of_event(5)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux alone")
@each_suffix
def test_a_name_that_is_no_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / os.fsdecode(b"bg-\xff" + suffix.encode())
    assert read_digits(write(path, [SAMPLE])).digits == SAMPLE
    assert list(open_events(path))[:1] == [SAMPLE.of_event(3)]


class Accident(BaseException):
    """An exception that no handler of the package catches."""


@each_suffix
@pytest.mark.parametrize(
    "accident",
    [
        Accident("in mid-write"),
        KeyboardInterrupt("in mid-write"),
        ZeroDivisionError("in mid-write"),
        OSError(errno.ENOSPC, "No space left on device", "/cache/in mid-write.nbc"),
    ],
    ids=lambda accident: type(accident).__name__,
)
@pytest.mark.parametrize("is_there", [True, False])
def test_a_failure_within_the_block_leaves_what_was_there(
    tmp_path: Path, suffix: str, accident: BaseException, is_there: bool
) -> None:
    """An error between events, such as a full disk under numba's cache, is not blamed on the file."""
    path = tmp_path / f"digits{suffix}"
    if is_there:
        write(path, [SAMPLE])
    with pytest.raises(type(accident), match="in mid-write") as caught, open_writer(path, PROVENANCE) as writer:  # noqa: PT012
        writer.write(SAMPLE.of_event(3))
        # The temporary files of an NPZ's columns have no name.
        assert [name for name in names_in(tmp_path) if not name.endswith(".partial")] == [path.name] * is_there
        raise accident
    assert caught.value is accident
    assert names_in(tmp_path) == [path.name] * is_there
    assert not is_there or read_digits(path).digits == SAMPLE


@each_suffix
@pytest.mark.parametrize("n_bytes", [2_000, 50_000])
def test_the_system_refuses_to_write_on(tmp_path: Path, suffix: str, n_bytes: int) -> None:
    """A limit on the size of files acts like a full disk: the file in the folder stays, and nothing else."""
    path = write(tmp_path / f"digits{suffix}", [SAMPLE])
    digits = [random_digits(np.random.default_rng(event), 100_000, event) for event in (3, 4)]
    with (
        limit_file_size(n_bytes),
        pytest.raises(OutputError, match=rf"digits{suffix} cannot be written: .*[Ff]ile too large"),
    ):
        write(path, digits)
    assert names_in(tmp_path) == [path.name]
    assert read_digits(path).digits == SAMPLE


@pytest.mark.parametrize("name", ["digits.csv", "digits", "digits.PARQUET", "digits.npz.gz", ".npz"])
def test_another_suffix(tmp_path: Path, name: str) -> None:
    for attempt, end in ((find_format, ""), (write_sample, ""), (read_digits, r", the formats of digit files\.$")):
        with pytest.raises(ArgumentValueError, match=f"must end in {ANY_SUFFIX}{end}") as caught:
            attempt(tmp_path / name)
        assert caught.value.argument == "path"
    assert names_in(tmp_path) == []


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sample(tmp_path / "digits.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    expected = r"Parquet needs pyarrow, which is not installed: pip install 'pxdbg-runtime\[parquet\]'\."
    for attempt in (find_format, write_sample, read_digits):
        with pytest.raises(MissingPackageError, match=expected) as caught:
            attempt(path)
        assert (caught.value.package, caught.value.extra) == ("pyarrow", "parquet")
    assert names_in(tmp_path) == ["digits.parquet"]
    assert read_digits(write_sample(tmp_path / "digits.npz")).digits == SAMPLE


@each_suffix
@pytest.mark.parametrize("events", [(), (3,), (6,), (3, 5), (3, 6), (4, 5), (3, 4, 5, 6)])
def test_each_event_comes_once_and_in_order(tmp_path: Path, suffix: str, events: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    parts = {event: random_digits(rng, 50, event) for event in events}
    reader = open_events(write(tmp_path / f"digits{suffix}", parts.values()))
    assert reader.provenance == PROVENANCE
    assert reader.event_numbers.dtype == np.int64  # NumPy 1's default on Windows is int32
    for _again in range(2):
        assert list(reader) == [parts.get(event, Digits.empty()) for event in (3, 4, 5, 6)]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_row_groups_need_not_be_events(tmp_path: Path, size: int) -> None:
    path = write_sample(tmp_path / "digits.parquet")
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path, row_group_size=size)
    read = list(open_events(path))
    assert read == [SAMPLE.of_event(event) for event in (3, 4, 5, 6)]
    assert Digits.concatenate(read) == read_digits(path).digits


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
