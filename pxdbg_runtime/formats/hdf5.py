"""Read digits from HDF5: from our layout, or from flat datasets of other tools, in blocks."""

from __future__ import annotations

import contextlib
import io
import math
import os
import zlib
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from pxdbg_runtime.formats.hdf5_layout import DIGIT_COLUMNS, EVENT, OFFSET
from pxdbg_runtime.formats.interface import (
    BLOCK_ROWS,
    DIGEST_KEY,
    MAX_METADATA_BYTES,
    METADATA_KEY,
    Columns,
    ContentError,
    StoredTexts,
)
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.formats.whole_events import EntryChecker
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Hdf5Reader"]

_MAX_CHUNK_BYTES: Final = 16 << 20
"""Largest chunk that is read, which HDF5 decompresses at once; ours have 131 kB."""
_CACHE_BYTES: Final = 2 << 20
"""HDF5 keeps so many bytes of chunks of each dataset; larger chunks are inflated again for each block."""
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_PIPELINES: Final = ((_SHUFFLE, _DEFLATE, _FLETCHER32), (_FLETCHER32, _SHUFFLE, _DEFLATE))
"""Filters of a chunk, in the orders in which they may be applied; each may be absent."""
_HEADER_BYTES: Final = 96
"""Of a file that h5py writes by default. Of a shorter one, old releases of HDF5 read memory that was never written."""
_CHECKSUM_BYTES: Final = 4
_STREAM_BYTES: Final = 64
"""More than a zlib stream adds to a few bytes."""


class Hdf5Reader:
    """Reads the digits of an HDF5 file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the datasets exist and hold integers."""
        with self._open() as file:
            columns = _open_columns(file)
            return StoredTexts(
                metadata=_read_text(file, METADATA_KEY),
                digest=_read_text(file, DIGEST_KEY),
                n_events=columns[EVENT].size if _has_dataset(file, OFFSET) else None,
            )

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows in blocks; HDF5 compares the checksum of each chunk."""
        with self._open() as file:
            columns = _open_columns(file)
            offset = _read_offset(file, columns)
            events = None if offset is None else _read_entries(columns.pop(EVENT))
            n_rows = columns["charge"].size
            for start in range(0, n_rows, BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, n_rows)
                block = {name: column.read(start, stop) for name, column in columns.items()}
                if events is not None and offset is not None:
                    block[EVENT] = events[np.searchsorted(offset, np.arange(start, stop), side="right") - 1]
                yield block

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        import h5py

        with open_regular(self._path) as content:
            if os.fstat(content.fileno()).st_size < _HEADER_BYTES:
                message = f"it is shorter than the {_HEADER_BYTES} bytes of a header of HDF5"
                raise ValueError(message)
            try:
                # A file, not a path: h5py would lock it, which some disks cannot, and wants names in UTF-8.
                with h5py.File(_Content(content), "r", rdcc_nbytes=_CACHE_BYTES) as file:
                    yield file
            except OSError as error:
                if error.errno is not None:
                    raise
                raise ValueError(str(error)) from None  # HDF5 says so if the content is damaged


class _Content:
    """The content of a file; h5py takes memory for what a file that was cut in the meantime no longer has."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Read as many bytes as asked for; raises `EOFError` if there are fewer."""
        content = self._file.read(size)
        if len(content) < size:
            message = "it was cut while it was read"
            raise EOFError(message)
        return content


class _Column:
    """A dataset of integers; each chunk is inflated here, within bounds, before HDF5 reads it.

    HDF5 inflates a chunk to any size, whatever its dataset claims, and crashes if one is too short.
    """

    def __init__(self, name: str, dataset: Any) -> None:  # noqa: ANN401
        self._dataset = dataset
        self._name = name
        self.size: int = dataset.shape[0]
        self._filters = _list_filters(dataset)
        self._next_chunk = 0

    def read(self, start: int, stop: int) -> NDArray[np.generic]:
        """Read a range of rows; ranges ascend."""
        if self._dataset.chunks is not None:
            (chunk_rows,) = self._dataset.chunks
            while self._next_chunk < stop:
                self._check_chunk(self._next_chunk, chunk_rows * self._dataset.dtype.itemsize)
                self._next_chunk += chunk_rows
        values: NDArray[np.generic] = self._dataset[start:stop]
        return values

    def read_whole(self) -> NDArray[np.generic]:
        """Read all rows."""
        return self.read(0, self.size)

    def _check_chunk(self, row: int, n_bytes: int) -> None:
        """Check that the chunk that begins with a row has as many bytes as its dataset claims."""
        stored = self._dataset.id.get_chunk_info_by_coord((row,))
        if stored.byte_offset is None:
            return  # it was never written, and has the fill value
        applied = [each for index, each in enumerate(self._filters) if not stored.filter_mask >> index & 1]
        if applied and row + self._dataset.chunks[0] > self.size and not _filters_partial_chunks(self._dataset):
            applied = []
        n_checksum = _CHECKSUM_BYTES * (_FLETCHER32 in applied)
        if _DEFLATE not in applied:
            is_complete = stored.size == n_bytes + n_checksum
        else:
            n_after = n_checksum if applied[-1] == _FLETCHER32 else 0
            is_complete = stored.size <= 2 * (n_bytes + n_checksum) + _STREAM_BYTES and self._is_stream(
                row, n_bytes + n_checksum - n_after, n_after
            )
        if not is_complete:
            message = f"a chunk of the dataset {self._name} has not the {n_bytes:,} bytes that it claims"
            raise ValueError(message)

    def _is_stream(self, row: int, n_inflated: int, n_after: int) -> bool:
        """Whether a chunk is a complete zlib stream of `n_inflated` bytes and `n_after` bytes that follow it."""
        _mask, content = self._dataset.id.read_direct_chunk((row,))
        inflater = zlib.decompressobj()
        inflated = inflater.decompress(content, n_inflated + 1)
        return inflater.eof and len(inflated) == n_inflated and len(inflater.unused_data) == n_after


def _open_columns(file: Any) -> dict[str, _Column]:  # noqa: ANN401
    columns = {name: _Column(name, _open_dataset(file, name)) for name in (EVENT, *DIGIT_COLUMNS)}
    expected = columns["charge"].size
    names = DIGIT_COLUMNS if _has_dataset(file, OFFSET) else (EVENT, *DIGIT_COLUMNS)
    for name in names:
        if columns[name].size != expected:
            message = (
                f"does not hold the columns of Digits: all columns must be of equal length, but {name} has "
                f"{columns[name].size:,} values and charge {expected:,}"
            )
            raise ContentError(message)
    return columns


def _read_entries(column: _Column) -> NDArray[np.generic]:
    """Read the number of each event; raises `ContentError` if one comes twice."""
    events = column.read_whole()
    checker = EntryChecker()
    checker.add(events)
    checker.finish()
    return events


def _read_offset(file: Any, columns: dict[str, _Column]) -> NDArray[np.generic] | None:  # noqa: ANN401
    """Read where the digits of each event begin; None if each digit has its event instead."""
    if not _has_dataset(file, OFFSET):
        return None
    n_events, n_rows = columns[EVENT].size, columns["charge"].size
    column = _Column(OFFSET, _open_dataset(file, OFFSET))
    if n_events > MAX_FILE_EVENTS:
        message = f"claims {n_events:,} events, expected at most {MAX_FILE_EVENTS:,}: split it into several files"
        raise ContentError(message)
    problem = f"it must have {n_events + 1:,} values, but has {column.size:,}"
    if column.size == n_events + 1:
        offset = column.read_whole()
        if offset[0] == 0 and offset[-1] == n_rows and np.array_equal(offset, np.sort(offset)):
            return offset
        problem = f"it must ascend from 0 to {n_rows:,}"
    message = (
        f"does not hold the columns of Digits: {OFFSET} must say where the digits of each event begin, but {problem}"
    )
    raise ContentError(message)


def _has_dataset(file: Any, name: str) -> bool:  # noqa: ANN401
    # Not `name in file`, which follows a link into another file.
    return bool(file.id.links.exists(name.encode()))


def _open_dataset(file: Any, name: str) -> Any:  # noqa: ANN401
    """Open a dataset of the root group, and check that it can be read within bounds and from this file alone."""
    import h5py

    if not _has_dataset(file, name):
        message = f"it has no dataset {name}"
        raise ValueError(message)
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        message = f"cannot be read: the dataset {name} is a link to another place, expected its values"
        raise ContentError(message)
    dataset = file[name]
    problem = None
    if not isinstance(dataset, h5py.Dataset):
        problem = f"{name} must be a dataset, but is a {type(dataset).__name__.lower()}"
    elif dataset.dtype.kind not in "iu":
        problem = f"{name} must hold integers, but holds {dataset.dtype}"
    elif dataset.shape is None or len(dataset.shape) != 1:
        problem = f"{name} must be one-dimensional, but has the shape {dataset.shape}"
    if problem is not None:
        message = f"does not hold the columns of Digits: {problem}"
        raise ContentError(message)
    kind = dataset.id.get_type()
    if isinstance(kind, h5py.h5t.TypeIntegerID) and kind.get_offset() + kind.get_precision() > 8 * kind.get_size():
        message = f"the integers of the dataset {name} have more bits than their {kind.get_size()} bytes hold"
        raise ValueError(message)  # HDF5 1.14.2 reads the memory after them
    if dataset.external or dataset.is_virtual:
        message = f"cannot be read: the values of {name} lie in another file, expected them in this one"
        raise ContentError(message)
    _check_filters(name, dataset)
    return dataset


def _check_filters(name: str, dataset: Any) -> None:  # noqa: ANN401
    """Check that only known filters are used, so that HDF5 loads no plug-in, and that chunks are not too large."""
    filters = _list_filters(dataset)
    if not any(filters == tuple(each for each in pipeline if each in filters) for pipeline in _PIPELINES):
        message = (
            f"cannot be read: the dataset {name} is compressed by the filters {filters} of HDF5, expected gzip, with "
            "shuffle and Fletcher-32 or without: write it again with those"
        )
        raise ContentError(message)
    n_bytes = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if n_bytes > _MAX_CHUNK_BYTES:
        message = (
            f"cannot be read: the dataset {name} has chunks of {n_bytes / 1e6:,.0f} MB, expected at most "
            f"{_MAX_CHUNK_BYTES / 1e6:.0f} MB: write it again with smaller ones"
        )
        raise ContentError(message)


def _list_filters(dataset: Any) -> tuple[int, ...]:  # noqa: ANN401
    properties = dataset.id.get_create_plist()
    return tuple(properties.get_filter(index)[0] for index in range(properties.get_nfilters()))


def _filters_partial_chunks(dataset: Any) -> bool:  # noqa: ANN401
    """Whether HDF5 applies filters to a chunk that is not full; False if its only filter is shuffle.

    An option of the dataset says so, which h5py does not read: a dataset with the same options, in memory, shows what
    HDF5 does.
    """
    import h5py

    properties = dataset.id.get_create_plist()
    properties.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    properties.set_fill_value(np.zeros((), dataset.dtype))
    with h5py.File(io.BytesIO(), "w") as file:
        space = h5py.h5s.create_simple((1,), (h5py.h5s.UNLIMITED,))
        probe = h5py.h5d.create(file.id, b"probe", dataset.id.get_type(), space, properties)
        probe.write(h5py.h5s.ALL, h5py.h5s.ALL, np.zeros(1, dataset.dtype))
        probe.flush()
        _mask, content = probe.read_direct_chunk((0,))
    return bool(content != bytes(dataset.chunks[0] * dataset.dtype.itemsize))


def _read_text(file: Any, name: str) -> str | None:  # noqa: ANN401
    import h5py

    if name not in file.attrs:
        return None
    attribute = file.attrs.get_id(name)
    kind = h5py.check_string_dtype(attribute.dtype)
    if kind is None or kind.length is None or attribute.shape != ():
        # HDF5 reads a text of variable length into as much memory as the file claims.
        what = str(attribute.dtype)
        if kind is not None:
            what = f"a text of {'variable' if kind.length is None else 'fixed'} length"
        message = (
            f"has an attribute {name} that must be one text of fixed length (np.bytes_), but is {what} of the shape "
            f"{attribute.shape}"
        )
        raise ContentError(message)
    if kind.length > MAX_METADATA_BYTES:
        message = f"has metadata of {kind.length:,} bytes, expected at most {MAX_METADATA_BYTES:,}"
        raise ContentError(message)
    return bytes(file.attrs[name]).decode()
