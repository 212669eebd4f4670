"""Digit files that claim or hold too much are refused, or read in memory that does not grow with the events."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from msgspec.structs import replace

from pxdbg_runtime.formats import open_events, open_writer, read_digits
from pxdbg_runtime.formats.parquet import ParquetReader
from tests.digit_files import (
    COLUMNS,
    METADATA,
    NOT_OURS,
    PLAIN_SUFFIXES,
    PROVENANCE,
    SAMPLE,
    each_suffix,
    random_digits,
    renumber,
    require_refusal,
    write,
    write_plainly,
)
from tests.test_command_line import invoke, require_failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MEGABYTE: Final = 1_000_000
BOMB_ROWS: Final = 10_000_000
CHECKOUT: Final = Path(__file__).resolve().parent.parent


@pytest.fixture
def _in_little_memory_and_time() -> Iterator[None]:
    """Allow a test 100 MB of NumPy's and Python's memory, 100 MB of pyarrow's, and a few seconds."""
    in_arrow = pa.default_memory_pool().max_memory() or 0
    started = time.monotonic()
    tracemalloc.start()
    yield
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * MEGABYTE
    assert (pa.default_memory_pool().max_memory() or 0) < in_arrow + 100 * MEGABYTE
    assert time.monotonic() - started < 10  # a busy machine is slow


def write_arrays(path: Path, arrays: Mapping[str, tuple[Mapping[str, Any], bytes]]) -> Path:
    """Write an NPZ with any headers."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (header, values) in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array_header_1_0(content, dict(header))
            archive.writestr(f"{name}.npy", content.getvalue() + values)
    return path


def plain_arrays() -> dict[str, tuple[dict[str, Any], bytes]]:
    return {
        name: ({"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}, column.tobytes())
        for name, column in COLUMNS.items()
    }


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"shape": (-1,)}, r"u_cell claims to be an array of uint16 of the shape \(-1,\), but has 10 bytes"),
        ({"shape": (10**15,)}, r"of the shape \(1000000000000000,\), but has 10 bytes"),
        ({"shape": (10**400,)}, r"it is not|u_cell claims|Exceeds the limit"),
        ({"shape": (4,)}, r"of the shape \(4,\), but has 10 bytes"),
        ({"shape": (6,)}, r"of the shape \(6,\), but has 10 bytes"),
        ({"shape": ()}, r"of the shape \(\), but has 10 bytes"),
        ({"descr": "|O"}, r"array of object of the shape"),
        ({"descr": "<U10000000"}, r"of the shape \(5,\), but has 10 bytes"),
        ({"descr": [("a", "<u2")]}, "u_cell must hold integers, but holds"),
    ],
)
def test_arrays_that_claim_what_they_do_not_hold(tmp_path: Path, claim: dict[str, Any], expected: str) -> None:
    arrays = plain_arrays()
    assert read_digits(write_arrays(tmp_path / "bg.npz", arrays)).digits == SAMPLE
    header, values = arrays["u_cell"]
    require_refusal(write_arrays(tmp_path / "bg.npz", {**arrays, "u_cell": ({**header, **claim}, values)}), expected)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(1000),
            "a header of 2,147,483,647 bytes, expected at most 10,000",
        ),
        (b"\x93NUMPY\x03\x00\x10\x00\x00\x00" + bytes(16), r"has the format \(3, 0\)"),
        (b"\x93NUMPY\x01\x00\x10\x00{'descr': open()}", NOT_OURS),
        (b"", NOT_OURS),
        (None, "it has 2 arrays charge, expected one"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_headers_of_arrays(tmp_path: Path, header: bytes | None, expected: str) -> None:
    arrays = plain_arrays()
    if header is not None:
        del arrays["charge"]
    path = write_arrays(tmp_path / "bg.npz", arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("charge.npy", archive.read("charge.npy") if header is None else header)
    require_refusal(path, expected)


def test_compression_without_bound(tmp_path: Path) -> None:
    """A few thousand bytes of bzip2 inflate to hundreds of megabytes in one step."""
    path = tmp_path / "bg.npz"
    with zipfile.ZipFile(write_arrays(path, plain_arrays())) as plain:
        contents = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content, zipfile.ZIP_BZIP2 if name == "charge.npy" else zipfile.ZIP_STORED)
    require_refusal(path, "the array charge is compressed by a method that NumPy does not use")


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make files of some hundred kilobytes that hold one digit ten million times."""
    folder = tmp_path_factory.mktemp("bomb")
    row = {name: column[:1] for name, column in COLUMNS.items()}
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, column in row.items():
            with archive.open(f"{name}.npy", "w") as member:
                header = {"descr": column.dtype.str, "fortran_order": False, "shape": (BOMB_ROWS,)}
                np.lib.format.write_array_header_1_0(member, header)
                block = np.full(MEGABYTE, column[0]).tobytes()
                for _ in range(BOMB_ROWS // MEGABYTE):
                    member.write(block)
    table = pa.table({name: np.full(BOMB_ROWS, column[0]) for name, column in row.items()})
    pyarrow.parquet.write_table(table, folder / "bomb.parquet", row_group_size=BOMB_ROWS)
    return {suffix: folder / f"bomb{suffix}" for suffix in PLAIN_SUFFIXES}


@each_suffix
@pytest.mark.usefixtures("_in_little_memory_and_time")
def test_one_row_ten_million_times(bomb: dict[str, Path], suffix: str) -> None:
    path = bomb[suffix]
    assert path.stat().st_size < 2 * MEGABYTE
    require_refusal(path, "holds a digit twice")


@each_suffix
@pytest.mark.usefixtures("_in_little_memory_and_time")
def test_a_long_text(tmp_path: Path, suffix: str) -> None:
    path = write_plainly(tmp_path / f"bg{suffix}", COLUMNS, "a" * 2_000_000)
    require_refusal(path, r"has metadata of 2,000,000 (bytes|characters), expected at most 1,048,576")
    path = write_plainly(tmp_path / f"bg{suffix}", COLUMNS, "a" * 6_000_000)
    require_refusal(path, r"has metadata of 6,000,000 characters|Exceeded size limit")


def test_a_footer_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bg.parquet"
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.truncate(300 * MEGABYTE)  # a hole, which takes no disk
        file.seek(0, io.SEEK_END)
        file.write((290 * MEGABYTE).to_bytes(4, "little") + b"PAR1")
    require_refusal(path, "has a footer of 290 MB, expected at most 67 MB")


@each_suffix
@pytest.mark.parametrize("events", ["1000001", f"1{'0' * 9}", f"1{'0' * 400}", f"1{'0' * 5000}"], ids=len)
def test_more_events_than_a_file_can_hold(tmp_path: Path, suffix: str, events: str) -> None:
    text = json.dumps(METADATA).replace('"events": 4', f'"events": {events}')
    path = write_plainly(tmp_path / f"bg{suffix}", COLUMNS, text)
    expected = "does not say how its digits were generated: (events must be an integer <= 1000000|it is not JSON)"
    require_refusal(path, expected)
    require_failure(invoke("show", path), 1, expected)
    require_failure(invoke("validate", path, "--report", tmp_path / "out.html"), 1, expected)


@each_suffix
def test_events_that_are_not_believed(tmp_path: Path, suffix: str) -> None:
    """Of a million events only two have a digit: those two are counted, and memory is allocated for them alone."""
    path = write_plainly(tmp_path / f"bg{suffix}", COLUMNS, replace(PROVENANCE, events=1_000_000).to_json())
    reader = open_events(path)
    assert (reader.provenance, reader.n_events) == (None, 2)
    assert reader.remark == "its metadata describe 1,000,000 events, but it holds digits of 2"
    assert len(list(reader)) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@each_suffix
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, suffix: str) -> None:
    expected = "cannot be read: it is a pipe, a device or a socket, expected a regular file"
    pipe, device, served = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "s"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tmp_path):  # such a path has 107 bytes at the most
        server.bind(served.name)
    for path in (pipe, device, served):
        require_refusal(path, expected)
    require_failure(invoke("show", pipe), 1, expected)


def test_a_file_that_is_replaced_while_it_is_opened_is_not_mixed_with_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of another tool needs no digest; ours, which replaces it, must have one."""
    foreign = write_plainly(tmp_path / "bg.parquet", COLUMNS, PROVENANCE.to_json())
    ours = write(tmp_path / "ours.parquet", [SAMPLE])
    parse = pyarrow.parquet.ParquetFile

    def replace_and_parse(content: BinaryIO, **options: bool | int) -> pyarrow.parquet.ParquetFile:
        ours.replace(foreign)
        return parse(content, **options)

    monkeypatch.setattr(pyarrow.parquet, "ParquetFile", replace_and_parse)
    texts = ParquetReader(foreign).read_texts()
    assert (texts.metadata, texts.digest) == (PROVENANCE.to_json(), None)
    monkeypatch.undo()
    assert ParquetReader(foreign).read_texts().digest is not None


@pytest.mark.parametrize(("suffix", "n_events", "most"), [(".parquet", 40, 40), (".npz", 16, 16)])
def test_memory_does_not_grow_with_the_events(tmp_path: Path, suffix: str, n_events: int, most: int) -> None:
    """Digits of 60 and 24 MB are written, read and shown in less memory.

    A row group of Parquet has a million rows, 15 MB, and is joined before it is written.
    """
    event = random_digits(np.random.default_rng(1), 100_000, 0)
    path = tmp_path / f"bg{suffix}"
    in_arrow = int(pa.total_allocated_bytes())

    def take_peak() -> int:
        """Give the peak of Python and NumPy since the last call, and the present memory of pyarrow."""
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        return peak + int(pa.total_allocated_bytes()) - in_arrow

    tracemalloc.start()
    with open_writer(path, replace(PROVENANCE, first_event=0, events=n_events)) as writer:
        for number in range(n_events):
            writer.write(renumber(event, number))
    peaks = [take_peak()]
    n_read = sum(len(digits) for digits in open_events(path))
    peaks.append(take_peak())
    result = invoke("show", path)
    peaks.append(take_peak())
    tracemalloc.stop()
    assert n_read == n_events * len(event)
    assert f"{n_read:,} digits" in result.stdout
    assert max(peaks) < most * MEGABYTE, peaks


PEAK: Final = """
import resource, sys
from pathlib import Path
from msgspec.structs import replace
from pxdbg_runtime.formats import open_events, open_writer
from tests.digit_files import PROVENANCE, digits_of, renumber
one = digits_of([(0, 8480, 1, 2, 9)])
peaks = []
for events in (1_000, 9_000):
    path = Path(sys.argv[1]) / f"{events}.parquet"
    with open_writer(path, replace(PROVENANCE, first_event=0, events=events)) as writer:
        for event in range(events):
            writer.write(renumber(one, event))
    for digits in open_events(path):
        assert len(digits) == 1
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0], path.stat().st_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere, or there is none")
@pytest.mark.slow
def test_thousands_of_events(tmp_path: Path) -> None:
    """With one row group per event, eight thousand events took 31 MB of memory and a footer of 2.5 MB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    kibibytes, size = map(int, done.stdout.split())
    assert kibibytes < 10_000
    assert size < MEGABYTE // 4


@each_suffix
def test_a_long_file_is_read_block_by_block(tmp_path: Path, suffix: str) -> None:
    """The blocks of one event are joined."""
    rng = np.random.default_rng(3)
    events = [random_digits(rng, n_hits, event) for event, n_hits in [(3, 10), (4, 600_000), (5, 0), (6, 300_000)]]
    path = write(tmp_path / f"bg{suffix}", events)
    assert list(open_events(path)) == events
    assert max(map(len, open_events(path).read_blocks())) <= 1 << 17
