"""HDF5: what h5py sees, files that other tools wrote, damaged and hostile files, and a full disk."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime import Digits
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats import FileMetadata, open_events, open_writer, read_digits
from pxdbg_runtime.formats.interface import BLOCK_ROWS
from tests.digit_files import (
    COLUMNS,
    METADATA,
    NOT_OURS,
    PROVENANCE,
    SAMPLE,
    random_digits,
    renumber,
    require_refusal,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NO_COLUMNS: Final = "does not hold the columns of Digits: "
NO_TEXT: Final = r"has an attribute pxdbg that must be one text of fixed length .np\.bytes_., but is"
NO_OFFSETS: Final = "offset must say where the digits of each event begin, but it must ascend from 0 to 5"
LISTS: Final = ("sensor_id", "u_cell", "v_cell", "charge")


def write_flat(path: Path, **datasets: Any) -> Path:  # noqa: ANN401
    """Write an array for each column as h5py does by default, or what takes its place."""
    with h5py.File(path, "w") as file:
        for name, values in {**COLUMNS, **datasets}.items():
            if values is not None:
                file[name] = values
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write the sample."""
    return write(tmp_path / "bg.h5", [SAMPLE.of_event(3), SAMPLE.of_event(5)])


def test_the_file_as_h5py_sees_it(path: Path) -> None:
    with h5py.File(path) as file:
        assert {name: (dataset.dtype.str, dataset.shape) for name, dataset in file.items()} == {
            "event": ("<i8", (4,)),
            "offset": ("<i8", (5,)),
            "sensor_id": ("<u2", (5,)),
            "u_cell": ("<u2", (5,)),
            "v_cell": ("<u2", (5,)),
            "charge": ("|u1", (5,)),
        }
        for dataset in file.values():
            assert (dataset.compression, dataset.shuffle, dataset.fletcher32) == ("gzip", True, True)
        assert file["event"][:].tolist() == [3, 4, 5, 6]
        assert file["offset"][:].tolist() == [0, 2, 2, 5, 5]
        start, stop = file["offset"][2:4]
        assert file["charge"][start:stop].tolist() == [7, 22, 9]
        assert json.loads(file.attrs["pxdbg"]) == METADATA
        assert json.loads(file.attrs["pxdbg_digest"])["rows"] == 5


def test_both_suffixes_and_equal_bytes(path: Path) -> None:
    other = write(path.with_suffix(".hdf5"), [SAMPLE])
    assert other.read_bytes() == path.read_bytes()
    content = read_digits(other)
    assert (content.digits, content.provenance, content.is_checked) == (SAMPLE, PROVENANCE, True)


def test_metadata_of_many_jobs(tmp_path: Path) -> None:
    """HDF5 keeps texts of more than 64 kB elsewhere."""
    jobs = FileMetadata(jobs=tuple(replace(PROVENANCE, first_event=2 * n, events=2, seed=n) for n in range(500)))
    assert len(jobs.to_json()) > 2 * 65_536
    path = write(tmp_path / "bg.h5", [SAMPLE], jobs)
    content = read_digits(path)
    assert (content.jobs, content.digits, content.n_events, content.is_checked) == (jobs.jobs, SAMPLE, 1000, True)
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[whole.index(b'"seed": 77') + 8] ^= 1
    path.write_bytes(changed)
    require_refusal(path, "is damaged|was changed")


def test_large_events_come_back_block_by_block(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    events = [random_digits(rng, n_hits, event) for event, n_hits in [(3, 10), (4, 300_000), (5, 0), (6, 200_000)]]
    digits = Digits.concatenate(events)
    parts = [digits.select_rows(slice(start, start + 70_000)) for start in range(0, len(digits), 70_000)]
    reader = open_events(write(tmp_path / "bg.h5", parts))
    assert list(reader) == events
    assert max(map(len, reader.read_blocks())) <= BLOCK_ROWS


def test_memory_does_not_grow_with_the_events(tmp_path: Path) -> None:
    """Forty events of 100,000 digits are 60 MB."""
    event = random_digits(np.random.default_rng(1), 100_000, 0)
    tracemalloc.start()
    with open_writer(tmp_path / "bg.h5", replace(PROVENANCE, first_event=0, events=40)) as writer:
        for number in range(40):
            writer.write(renumber(event, number))
    assert sum(map(len, open_events(tmp_path / "bg.h5").read_blocks())) == 4_000_000
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("kind", [np.int64, np.uint32, ">i4"])
def test_flat_datasets_of_other_tools(tmp_path: Path, kind: Any) -> None:  # noqa: ANN401
    columns = {name: column.astype(kind) for name, column in COLUMNS.items()}
    content = read_digits(write_flat(tmp_path / "bg.h5", **columns, more=np.zeros((2, 2))))
    assert (content.digits, content.provenance, content.n_events, content.is_checked) == (SAMPLE, None, 2, False)


def test_a_copy_keeps_the_digest_and_a_selection_is_found(path: Path, tmp_path: Path) -> None:
    def copy(stop: int) -> Path:
        with h5py.File(path) as source, h5py.File(tmp_path / "copy.h5", "w") as file:
            for name, dataset in source.items():
                file[name] = (
                    np.minimum(dataset[:], stop) if name == "offset" else dataset[: 4 if name == "event" else stop]
                )
            for name, text in source.attrs.items():
                file.attrs[name] = text
        return tmp_path / "copy.h5"

    content = read_digits(copy(5))
    assert (content.digits, content.provenance, content.is_checked) == (SAMPLE, PROVENANCE, True)
    require_refusal(copy(4), "holds other rows than those that its digest was computed from")


def add_to(path: Path, change: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replace_dataset(name: str, **options: Any) -> Callable[[h5py.File], object]:  # noqa: ANN401
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return change


def replace_link(name: str, link: Any) -> Callable[[h5py.File], object]:  # noqa: ANN401
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


def make_virtual(file: h5py.File) -> None:
    del file["charge"]
    layout = h5py.VirtualLayout(shape=(5,), dtype="u1")
    layout[:] = h5py.VirtualSource("other.h5", "charge", shape=(5,))
    file.create_virtual_dataset("charge", layout)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (replace_link("charge", h5py.SoftLink("/u_cell")), "the dataset charge is a link to another place"),
        (replace_link("charge", h5py.ExternalLink("other.h5", "/charge")), "the dataset charge is a link to another"),
        (replace_link("offset", h5py.ExternalLink("other.h5", "/offset")), "the dataset offset is a link to another"),
        (
            replace_dataset("charge", shape=(5,), dtype="u1", external=[("/etc/passwd", 0, 5)]),
            "the values of charge lie in another file",
        ),
        (make_virtual, "the values of charge lie in another file"),
        (
            replace_dataset("charge", data=np.ones(5, "u1"), chunks=(5,), compression="lzf"),
            r"charge is compressed by the filters \(32000,\) of HDF5, expected gzip, with shuffle",
        ),
        (
            replace_dataset("charge", data=np.ones(5, "u1"), chunks=(20_000_000,), maxshape=(None,)),
            "charge has chunks of 20 MB, expected at most 17 MB",
        ),
    ],
)
def test_what_is_not_read(path: Path, change: Callable[[h5py.File], object], expected: str) -> None:
    require_refusal(add_to(path, change), f"cannot be read: .*{expected}")


TEXTS: Final = np.array(["a"] * 5, dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ({"charge": None}, f"{NOT_OURS} .it has no dataset charge"),
        ({"charge": COLUMNS["charge"] / 2}, f"{NO_COLUMNS}charge must hold integers, but holds float64"),
        ({"charge": COLUMNS["charge"] > 5}, f"{NO_COLUMNS}charge must hold integers, but holds bool"),
        ({"charge": TEXTS}, f"{NO_COLUMNS}charge must hold integers, but holds object"),
        ({"charge": np.ones(5, [("a", "u1")])}, f"{NO_COLUMNS}charge must hold integers, but holds .*a"),
        ({"charge": np.ones((5, 1), "u1")}, rf"{NO_COLUMNS}charge must be one-dimensional, but has the shape \(5, 1\)"),
        ({"charge": np.uint8(1)}, rf"{NO_COLUMNS}charge must be one-dimensional, but has the shape \(\)"),
        ({"charge": h5py.Empty("u1")}, rf"{NO_COLUMNS}charge must be one-dimensional, but has the shape None"),
        ({"charge": np.dtype("u1")}, f"{NO_COLUMNS}charge must be a dataset, but is a datatype"),
        ({"charge": None, "charge/a": [1]}, f"{NO_COLUMNS}charge must be a dataset, but is a group"),
        ({"charge": np.ones(4, "u1")}, f"{NO_COLUMNS}.* of equal length, but event has 5 values and charge 4"),
        ({"offset": np.array([0, 2])}, "where the digits of each event begin, but it must have 6 values, but has 2"),
        (
            {"offset": np.array([0, 1, 2, 3, 4, 6])},
            NO_OFFSETS,
        ),
        (
            {"offset": np.array([0, 1, 3, 2, 4, 5])},
            NO_OFFSETS,
        ),
        (
            {"offset": np.array([1, 1, 2, 3, 4, 5])},
            NO_OFFSETS,
        ),
        (
            {"event": np.array([0, 0]), "offset": np.array([0, 2, 5])},
            "holds two entries of event 0, expected one: leave out what was merged twice",
        ),
        ({"u_cell": np.array([0, 250, 17, 17, 100])}, "holds u_cell from 0 to 250, expected 0 to 249"),
    ],
)
def test_datasets_that_hold_no_digits(tmp_path: Path, datasets: dict[str, Any], expected: str) -> None:
    assert read_digits(write_flat(tmp_path / "bg.h5")).digits == SAMPLE
    require_refusal(write_flat(tmp_path / "bg.h5", **datasets), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (np.bytes_(b"a" * 2_000_000), "has metadata of 2,000,000 bytes, expected at most 1,048,576"),
        (np.bytes_(b"\xff\xfe"), NOT_OURS),
        ("made with care", f"{NO_TEXT} a text of variable length of the shape"),
        (np.ones(3), rf"{NO_TEXT} float64 of the shape \(3,\)"),
        (np.array([b"a", b"b"]), rf"{NO_TEXT} a text of fixed length of the shape \(2,\)"),
        (np.bytes_(b"made with care"), "does not say how its digits were generated: it is not JSON"),
    ],
    ids=["long", "not UTF-8", "variable length", "numbers", "texts", "other text"],
)
def test_texts_that_are_no_metadata(tmp_path: Path, text: Any, expected: str) -> None:  # noqa: ANN401
    path = tmp_path / "bg.h5"
    with h5py.File(path, "w", libver="latest") as file:  # the older formats hold no text of more than 64 kB
        for name, values in COLUMNS.items():
            file[name] = values
        file.attrs["pxdbg"] = text
    require_refusal(path, expected)


def test_a_claim_of_too_many_events(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "bg.h5", event=None, offset=np.zeros(3, np.int64))
    with h5py.File(path, "r+") as file:
        file.create_dataset("event", shape=(10**12,), dtype="i8", chunks=(1000,))
    require_refusal(path, "claims 1,000,000,000,000 events, expected at most 1,000,000")


def test_rows_that_were_never_written(tmp_path: Path) -> None:
    """A dataset of a few bytes may claim any number of values that are all zero."""
    path = tmp_path / "bg.h5"
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            file.create_dataset(name, shape=(10**12,), dtype=column.dtype, chunks=(1000,), compression="gzip")
    require_refusal(path, "holds the VxdID 0, which is no sensor")


def write_bomb(path: Path, n_rows: int) -> None:
    """Write one digit many times."""
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            values = np.full(n_rows, column[0])
            file.create_dataset(name, data=values, chunks=(1 << 20,), compression="gzip", shuffle=True)


def test_one_row_ten_million_times(tmp_path: Path) -> None:
    path = tmp_path / "bomb.h5"
    write_bomb(path, 10_000_000)
    assert path.stat().st_size < 500_000
    tracemalloc.start()
    require_refusal(path, "holds a digit twice")
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000


def test_chunks_of_other_sizes(tmp_path: Path) -> None:
    """HDF5 inflates the first to the end, 100 MB of 100 kB, and crashes if one is shorter than its checksum."""
    path = write_flat(tmp_path / "bg.h5", charge=None)
    with h5py.File(path, "r+") as file:
        options = {"dtype": "u1", "chunks": (100_000,), "maxshape": (None,), "compression": "gzip"}
        file.create_dataset("charge", shape=(5,), **options)
    expected = f"{NOT_OURS} .a chunk of the dataset charge has not the 100,000 bytes that it claims"
    values = SAMPLE.charge.tobytes() + bytes(99_995)
    for content, mask, problem in (
        (zlib.compress(bytes(100_000_000), 9), 0, expected),
        (bytes(1_000_000), 0, expected),
        (zlib.compress(values)[:20], 0, expected),
        (zlib.compress(values) + b"more", 0, expected),
        (zlib.compress(values[:-1]), 0, expected),
        (values[:-1], 1, expected),
        (b"no stream", 0, NOT_OURS),
        (zlib.compress(values), 0, None),
        (values, 1, None),  # without the first filter
    ):
        with h5py.File(path, "r+") as file:
            file["charge"].id.write_direct_chunk((0,), content, mask)
        if problem is None:
            assert read_digits(path).digits == SAMPLE
        else:
            require_refusal(path, problem)


def test_a_chunk_that_is_shorter_than_its_checksum(tmp_path: Path) -> None:
    path = write_flat(tmp_path / "bg.h5", charge=None)
    with h5py.File(path, "r+") as file:
        options = {"chunks": (5,), "compression": "gzip", "fletcher32": True}
        file.create_dataset("charge", data=SAMPLE.charge, **options)
    assert read_digits(path).digits == SAMPLE
    with h5py.File(path, "r+") as file:
        file["charge"].id.write_direct_chunk((0,), b"abc", 1)
    require_refusal(path, f"{NOT_OURS} .a chunk of the dataset charge has not the 5 bytes that it claims")


@pytest.mark.parametrize("chunk_rows", [2, 1000])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("fletcher32", [True, False])
def test_filters_of_other_tools(tmp_path: Path, *, chunk_rows: int, shuffle: bool, fletcher32: bool) -> None:
    digits = random_digits(np.random.default_rng(4), 2 * chunk_rows + 1, 3)
    path = tmp_path / "bg.h5"
    with h5py.File(path, "w") as file:
        for name in COLUMNS:
            values = getattr(digits, name)
            options = {"compression": "gzip", "shuffle": shuffle, "fletcher32": fletcher32}
            file.create_dataset(name, data=values, chunks=(chunk_rows,), **options)
    assert read_digits(path).digits == digits


@pytest.mark.slow
def test_every_flipped_byte_is_found(path: Path) -> None:
    """The format of HDF5 1.10 has a checksum of everything but the chunks, and those have one of their own."""
    whole = path.read_bytes()
    for place in range(0, len(whole), 41):
        content = bytearray(whole)
        content[place] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(DigitFileError, match=NOT_OURS):
            read_digits(path)


def test_truncated_and_foreign_files(path: Path) -> None:
    whole = path.read_bytes()
    for length in (0, 1, 8, 95):
        path.write_bytes(whole[:length])
        require_refusal(path, rf"{NOT_OURS} \(it is shorter than the 96 bytes of a header of HDF5\)")
    for length in (96, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        require_refusal(path, NOT_OURS)
    for content in (b"PK\x03\x04", b"PAR1" * 3, whole[:8] + bytes(2000), np.random.default_rng(1).bytes(5000)):
        path.write_bytes(content)
        require_refusal(path, NOT_OURS)
    path.unlink()
    require_refusal(path, r"cannot be read: No such file or directory\.")
