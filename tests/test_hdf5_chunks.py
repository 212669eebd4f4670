"""HDF5: chunks as HDF5 stores them are read, and chunks that hold less than they claim are refused.

HDF5 gives the memory after a chunk that is too short as its values.
"""

from __future__ import annotations

import ctypes
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import h5py
import pytest
from h5py import h5d, h5p, h5s, h5t

from pxdbg_runtime.formats import read_digits
from tests.digit_files import COLUMNS, NOT_OURS, SAMPLE, require_refusal

if TYPE_CHECKING:
    from collections.abc import Callable

PIPELINES: Final = (
    "deflate",
    "shuffle deflate",
    "deflate fletcher32",
    "shuffle deflate fletcher32",
    "fletcher32 deflate",
    "fletcher32 shuffle deflate",
)
EVENT: Final = SAMPLE.event.tobytes()
CLAIM: Final = rf"{NOT_OURS} \(a chunk of the dataset event has not the {len(EVENT)} bytes that it claims\)"


def write_events(
    path: Path, filters: str, chunk_rows: int = len(SAMPLE), configure: Callable[[h5p.PropDCID], object] | None = None
) -> Path:
    """Write the sample; filters are applied to its events in the order that they have in a text."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_chunk((chunk_rows,))
    for name in filters.split():
        getattr(properties, f"set_{name}")(*[4] * (name == "deflate"))
    if configure is not None:
        configure(properties)
    with h5py.File(path, "w") as file:
        for name, column in COLUMNS.items():
            if name != "event":
                file[name] = column
        space = h5s.create_simple((len(SAMPLE),), (h5s.UNLIMITED,))
        h5d.create(file.id, b"event", h5t.NATIVE_INT64, space, properties).write(h5s.ALL, h5s.ALL, SAMPLE.event)
    return path


def replace_chunk(path: Path, content: bytes, mask: int = 0) -> Path:
    with h5py.File(path, "r+") as file:
        file["event"].id.write_direct_chunk((0,), content, mask)
    return path


@pytest.mark.parametrize("filters", [*PIPELINES, "shuffle", "fletcher32", "fletcher32 shuffle"])
def test_every_order_of_the_filters(tmp_path: Path, filters: str) -> None:
    assert read_digits(write_events(tmp_path / "bg.h5", filters)).digits == SAMPLE


@pytest.mark.parametrize("filters", PIPELINES)
def test_skipped_filters(tmp_path: Path, filters: str) -> None:
    path = write_events(tmp_path / "bg.h5", filters)
    all_filters = (1 << len(filters.split())) - 1
    assert read_digits(replace_chunk(path, EVENT, all_filters)).digits == SAMPLE
    all_others = all_filters ^ 1 << filters.split().index("deflate")
    assert read_digits(replace_chunk(path, zlib.compress(EVENT), all_others)).digits == SAMPLE


@pytest.mark.parametrize("n_inflated", [0, 20, len(EVENT) - 4])
@pytest.mark.parametrize("filters", PIPELINES)
def test_a_short_stream_with_bytes_after_it(tmp_path: Path, filters: str, n_inflated: int) -> None:
    path = write_events(tmp_path / "bg.h5", filters)
    n_checksum = 4 if "fletcher32" in filters else 0
    after = bytes(len(EVENT) + n_checksum - n_inflated)
    require_refusal(replace_chunk(path, zlib.compress(EVENT[:n_inflated]) + after), CLAIM)
    all_others = (1 << len(filters.split())) - 1 ^ 1 << filters.split().index("deflate")
    after = bytes(len(EVENT) - n_inflated)
    require_refusal(replace_chunk(path, zlib.compress(EVENT[:n_inflated]) + after, all_others), CLAIM)


@pytest.fixture
def filter_full_chunks_alone() -> Callable[[h5p.PropDCID], object]:
    """Find the function of HDF5 that h5py lacks: a chunk that is not full is stored without filters."""
    libraries = list(Path(h5py.__file__).parent.parent.glob("h5py.libs/libhdf5-*"))
    if not libraries:
        pytest.skip("this h5py is no wheel of PyPI for Linux, which has the library of HDF5 in a folder of its own")
    set_options = ctypes.CDLL(str(libraries[0])).H5Pset_chunk_opts
    set_options.argtypes = [ctypes.c_int64, ctypes.c_uint]
    return lambda properties: set_options(properties.id, 2)


@pytest.mark.parametrize("filters", [*PIPELINES, "shuffle", "fletcher32"])
def test_a_last_chunk_without_filters(
    tmp_path: Path, filters: str, filter_full_chunks_alone: Callable[[h5p.PropDCID], object]
) -> None:
    path = write_events(tmp_path / "bg.h5", filters, 3, filter_full_chunks_alone)
    with h5py.File(path) as file:
        assert file["event"].id.get_chunk_info_by_coord((3,)).size == 24
    assert read_digits(path).digits == SAMPLE


def test_a_stream_where_a_chunk_has_no_filters(
    tmp_path: Path, filter_full_chunks_alone: Callable[[h5p.PropDCID], object]
) -> None:
    path = write_events(tmp_path / "bg.h5", "deflate", 1000, filter_full_chunks_alone)
    replace_chunk(path, zlib.compress(EVENT + bytes(8000 - len(EVENT))))
    require_refusal(path, f"{NOT_OURS} .a chunk of the dataset event has not the 8,000 bytes that it claims")
    replace_chunk(path, EVENT + bytes(8000 - len(EVENT)))
    assert read_digits(path).digits == SAMPLE


def test_integers_of_more_bits_than_their_bytes_hold(tmp_path: Path) -> None:
    path = write_events(tmp_path / "bg.h5", "")
    content = path.read_bytes()
    bits = (0).to_bytes(2, "little") + (64).to_bytes(2, "little")  # the first bit, and the number of bits
    size = (8).to_bytes(4, "little")
    assert content.count(size + bits) == 1
    path.write_bytes(content.replace(size + bits, size + bits[:3] + b"\x40"))
    require_refusal(path, f"{NOT_OURS} .*(more bits than their 8 bytes hold|out of bounds)")


@pytest.mark.parametrize("filters", ["", "deflate", "shuffle deflate fletcher32"])
def test_a_chunk_of_no_bytes(tmp_path: Path, filters: str) -> None:
    """HDF5 reads memory as such a chunk, or crashes."""
    path = write_events(tmp_path / "bg.h5", filters)
    with h5py.File(path) as file:
        stored = file["event"].id.get_chunk_info(0)
    content = path.read_bytes()
    key = bytes(4) + bytes(16)  # no skipped filter; the first row, and the first byte of a value
    size = stored.size.to_bytes(4, "little") + key
    place = stored.byte_offset.to_bytes(8, "little")
    assert content.count(size + place) == 1
    path.write_bytes(content.replace(size + place, bytes(4) + key + place))
    require_refusal(path, CLAIM)
