"""Files of digits: what is written comes back, plain tools can read it, and a failure leaves no file behind.

What is read from bad files is in test_bad_digit_files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxdbg_runtime import DIGIT_DTYPE, N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Digits, Generator, __version__
from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import ArgumentValueError, MissingPackageError, OutputError
from pxdbg_runtime.formats import (
    SUFFIXES,
    Provenance,
    check_suffix,
    describe_generation,
    open_events,
    open_writer,
    read_digits,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pxdbg_runtime.model.graph_file import GraphFile

CHECKOUT: Final = Path(__file__).resolve().parent.parent
Hit = tuple[int, int, int, int, int]
"""Event, VxdID, u cell, v cell, charge."""

HOW: Final = Provenance(
    model="tiny",
    nature="demonstration",
    provenance="Made for a test: größer.",
    precision="float32",
    graph_sha256="0123456789abcdef" * 4,
    seed=-7,
    random_stream="philox",
    first_event=3,
    events=4,
    min_charge=1,
    provider="CPUExecutionProvider",
    version="0.1.0",
)

each_suffix = pytest.mark.parametrize("suffix", SUFFIXES)


def digits_of(hits: Iterable[Hit]) -> Digits:
    table = np.array(list(hits), dtype=DIGIT_DTYPE)
    return Digits(**{name: table[name].copy() for name in COLUMN_DTYPES})


def random_digits(rng: np.random.Generator, n_hits: int, event: int) -> Digits:
    """Make digits of one event with different pixels, in order."""
    pixels = np.sort(rng.choice(N_SENSORS * N_U_CELLS * N_V_CELLS, n_hits, replace=False))
    index, u_cell, v_cell = np.unravel_index(pixels, (N_SENSORS, N_U_CELLS, N_V_CELLS))
    vxd_ids = np.array([sensor.vxd_id for sensor in SENSORS], dtype=np.uint16)
    return Digits(
        event=np.full(n_hits, event, dtype=np.int64),
        sensor_id=vxd_ids[index],
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=rng.integers(1, 256, n_hits).astype(np.uint8),
    )


def renumbered(digits: Digits, event: int) -> Digits:
    """Give the same pixels and charges to another event."""
    columns = {name: getattr(digits, name) for name in COLUMN_DTYPES}
    return Digits(**{**columns, "event": np.full(len(digits), event)})


SAMPLE: Final = digits_of(
    [
        (3, 8480, 0, 0, 1),
        (3, 19520, 249, 767, 255),
        (5, 8512, 17, 400, 7),
        (5, 8512, 17, 401, 22),
        (5, 16672, 100, 5, 9),
    ]
)
"""Digits of the events 3 and 5 of the four that HOW tells of; the limits of each column occur."""


def write(path: Path, parts: Iterable[Digits], how: Provenance = HOW) -> Path:
    with open_writer(path, how) as writer:
        for digits in parts:
            writer.write(digits)
    return path


def origin_of(path: Path) -> Provenance:
    """Read how the digits of a file were made, which must be known."""
    how = read_digits(path).describe_generation
    assert how is not None
    return how


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


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
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, drawn: tuple[int, list[list[Hit]]]
) -> None:
    first_event, events = drawn
    how = replace(HOW, first_event=first_event, events=len(events))
    path = write(tmp_path_factory.getbasetemp() / f"drawn{suffix}", map(digits_of, events), how)
    content = read_digits(path)
    assert content.digits.to_structured().tolist() == [hit for hits in events for hit in hits]
    assert content.describe_generation == how


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
    assert content.digits == Digits.empty()
    assert content.describe_generation == HOW


@each_suffix
@pytest.mark.parametrize("seed", [MIN_SEED, MAX_SEED])
def test_extreme_numbers_come_back(tmp_path: Path, suffix: str, seed: int) -> None:
    how = replace(HOW, seed=seed, first_event=MAX_EVENT, events=1, min_charge=255, random_stream="torch")
    digits = digits_of([(MAX_EVENT, 8480, 1, 2, 255)])
    content = read_digits(write(tmp_path / f"extreme{suffix}", [digits], how))
    assert content.digits == digits
    assert content.describe_generation == how


def test_parquet_as_pyarrow_sees_it(tmp_path: Path) -> None:
    parts = [SAMPLE.of_event(3), Digits.empty(), SAMPLE.of_event(5)]
    file = pyarrow.parquet.ParquetFile(write(tmp_path / "plain.parquet", parts))
    schema = file.schema_arrow
    assert schema.names == ["event", "sensor_id", "u_cell", "v_cell", "charge"]
    assert schema.types == [pa.int64(), pa.uint16(), pa.uint16(), pa.uint16(), pa.uint8()]
    assert json.loads(schema.metadata[b"pxdbg"]) == {"schema": 1, **asdict(HOW)}
    table = file.read()
    assert table.column("sensor_id").to_pylist() == [8480, 19520, 8512, 8512, 16672]
    assert table.column("charge").to_pylist() == [1, 255, 7, 22, 9]


def test_parquet_has_no_row_group_without_rows_and_no_column_with_gaps(tmp_path: Path) -> None:
    """Spark 3.3 refuses the one ("Illegal row group of 0 rows"), and awkward makes another type of the other."""
    events = [digits_of([(event, 8480, 0, 0, 9)]) if event % 3 else Digits.empty() for event in range(3, 1003)]
    path = write(tmp_path / "many.parquet", events, replace(HOW, events=1000))
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
        assert json.loads(str(content["pxdbg"])) == {"schema": 1, **asdict(HOW)}


def test_npz_waits_in_files_that_vanish(tmp_path: Path) -> None:
    """Nobody sees the temporary files, and a failure leaves none."""
    with pytest.raises(Accident, match="half-way"), open_writer(tmp_path / "bg.npz", HOW) as writer:  # noqa: PT012
        writer.write(SAMPLE)
        assert [name for name in names_in(tmp_path) if not name.endswith(".partial")] == []
        message = "half-way"
        raise Accident(message)
    assert names_in(tmp_path) == []


@each_suffix
@pytest.mark.parametrize(
    ("parts", "how", "expected"),
    [
        ([SAMPLE.of_event(5), SAMPLE.of_event(3)], HOW, "was given digits that are not ordered by event, sensor, u"),
        ([SAMPLE, SAMPLE.of_event(5)], HOW, "was given digits that are not ordered"),
        ([digits_of([(3, 8480, 0, 0, 1)])] * 2, HOW, "was given a digit twice: the same event, sensor, u cell"),
        ([SAMPLE], replace(HOW, first_event=4), "was given events 3 to 5, expected 4 to 7 by its own metadata"),
        ([SAMPLE], replace(HOW, events=2), "was given events 3 to 5, expected 3 to 4 by its own metadata"),
        ([SAMPLE], replace(HOW, min_charge=2), "was given charges from 1 ADU on, below its own threshold of 2 ADU"),
    ],
)
def test_what_would_not_be_read_is_not_written(
    tmp_path: Path, suffix: str, parts: list[Digits], how: Provenance, expected: str
) -> None:
    with pytest.raises(ArgumentValueError, match=expected):
        write(tmp_path / f"bg{suffix}", parts, how)
    assert names_in(tmp_path) == []


@each_suffix
def test_more_events_than_a_file_may_tell_of(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bg{suffix}"
    with pytest.raises(
        ArgumentValueError, match=r"would hold 1,000,001 events, expected at most 1,000,000: split them"
    ):
        write(path, [], replace(HOW, events=1_000_001))
    assert names_in(tmp_path) == []


def test_how_made_describes_the_generator(latent_graph: GraphFile) -> None:
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
    with open_writer(path, HOW) as writer:
        writer.write(SAMPLE.of_event(5))
        assert read_digits(path).digits == SAMPLE
    assert read_digits(path).digits == SAMPLE.of_event(5)
    assert names_in(tmp_path) == [path.name]


@each_suffix
def test_no_folder_to_write_in(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "nowhere" / f"digits{suffix}"
    with pytest.raises(
        OutputError, match=r"nowhere/digits\.\w+ cannot be written: the folder \S+nowhere does not exist\."
    ) as info:
        write(path, [SAMPLE])
    assert info.value.path == path
    assert names_in(tmp_path) == []


@each_suffix
def test_a_folder_in_the_way(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"digits{suffix}"
    path.mkdir()
    with pytest.raises(OutputError, match="is a folder: expected the name of a file to write"):
        write(path, [SAMPLE])
    assert names_in(tmp_path) == [path.name]
    assert names_in(path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux alone")
@each_suffix
def test_a_name_that_is_no_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / os.fsdecode(b"bg-\xff" + suffix.encode())
    assert read_digits(write(path, [SAMPLE])).digits == SAMPLE
    assert list(open_events(path))[:1] == [SAMPLE.of_event(3)]


@each_suffix
def test_a_file_where_the_folder_should_be(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written: Not a directory\."):
        write(tmp_path / "file" / f"digits{suffix}", [SAMPLE])
    assert names_in(tmp_path) == ["file"]


@each_suffix
@pytest.mark.parametrize("length", [256, 300])
def test_a_name_that_is_too_long(tmp_path: Path, suffix: str, length: int) -> None:
    with pytest.raises(OutputError, match=r"cannot be written: File name too long\."):
        write(tmp_path / f"{'a' * (length - len(suffix))}{suffix}", [SAMPLE])
    assert names_in(tmp_path) == []


class Accident(BaseException):
    """What no handler of the package can know."""


@each_suffix
@pytest.mark.parametrize("accident", [Accident, KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_failure_within_the_block_leaves_what_was_there(
    tmp_path: Path, suffix: str, accident: type[BaseException], is_there: bool
) -> None:
    path = tmp_path / f"digits{suffix}"
    if is_there:
        write(path, [SAMPLE])
    with pytest.raises(accident, match="in mid-write"), open_writer(path, HOW) as writer:  # noqa: PT012
        writer.write(SAMPLE.of_event(3))
        message = "in mid-write"
        raise accident(message)
    assert names_in(tmp_path) == ([path.name] if is_there else [])
    assert not is_there or read_digits(path).digits == SAMPLE


LITTLE_ROOM: Final = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from pxdbg_runtime.errors import OutputError
from tests.test_digit_files import random_digits, write

digits = random_digits(np.random.default_rng(1), 100_000, 3)
write(Path(sys.argv[1]).with_name("roomy" + Path(sys.argv[1]).suffix), [digits])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    write(Path(sys.argv[1]), [digits, random_digits(np.random.default_rng(2), 100_000, 4)])
except OutputError as error:
    print(error)
"""
"""A limit on the size of files: the system itself refuses to write on, as on a full disk."""


@each_suffix
def test_the_system_refuses_to_write_on(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"digits{suffix}", [SAMPLE])
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_ROOM, str(path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path} cannot be written: ")
    assert done.stdout.endswith("File too large.\n")
    assert names_in(tmp_path) == [path.name, f"roomy{suffix}"]
    assert read_digits(path).digits == SAMPLE


@pytest.mark.parametrize("name", ["digits.root", "digits", "digits.PARQUET", "digits.npz.gz", ".npz"])
def test_another_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    expected = r"must end in \.parquet or \.npz"
    with pytest.raises(ArgumentValueError, match=expected) as info:
        check_suffix(path)
    assert info.value.argument == "path"
    with pytest.raises(ArgumentValueError, match=expected):
        write(path, [SAMPLE])
    with pytest.raises(ArgumentValueError, match=rf"{expected}, the formats of files of digits\.$"):
        read_digits(path)
    assert names_in(tmp_path) == []


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "digits.parquet", [SAMPLE])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    expected = r"Parquet needs pyarrow, which is not installed: pip install 'pxdbg-runtime\[parquet\]'\."
    with pytest.raises(MissingPackageError, match=expected) as info:
        check_suffix(path)
    assert (info.value.package, info.value.extra) == ("pyarrow", "parquet")
    with pytest.raises(MissingPackageError, match=expected):
        write(tmp_path / "other.parquet", [SAMPLE])
    with pytest.raises(MissingPackageError, match=expected):
        read_digits(path)
    assert names_in(tmp_path) == ["digits.parquet"]


def test_npz_needs_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert read_digits(write(tmp_path / "digits.npz", [SAMPLE])).digits == SAMPLE
