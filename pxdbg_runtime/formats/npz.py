"""Digits as NPZ, in the layout of `numpy.savez_compressed`, but written and read in bounded memory."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.interface import (
    BLOCK_ROWS,
    MAX_METADATA_BYTES,
    METADATA_KEY,
    Columns,
    ContentError,
    StoredTexts,
)
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["NpzReader", "write_npz"]

_SPOOL_LEVEL: Final = 1
"""Compression of the temporary files: fast."""
_GZIP: Final = 31
"""zlib's `wbits` of a gzip file, which can be read back in bounded memory."""
_COPY_BYTES: Final = 1 << 20
_MAX_HEADER_BYTES: Final = 10_000
"""NumPy's own limit on the header of an array."""
_CHARACTER_BYTES: Final = 4
_END_OF_ARCHIVE: Final = struct.Struct("<4s16xH")
"""The last record of a zip file: its signature, what zipfile checks, and the length of the comment that follows."""
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods that NumPy writes; the others inflate without a bound in memory."""


class _NpzWriter:
    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        # Where the system can, they have no name, so that not even a kill leaves them behind.
        self._files = {
            name: stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
            for name in COLUMN_DTYPES
        }
        self._compressors = {name: zlib.compressobj(_SPOOL_LEVEL, wbits=_GZIP) for name in COLUMN_DTYPES}
        self._hasher = RowHasher()

    def write(self, digits: Digits) -> None:
        """Append digits."""
        self._hasher.update(digits)
        for name, file in self._files.items():
            column = getattr(digits, name)
            little_endian = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
            file.write(self._compressors[name].compress(little_endian.data))

    def finish(self, path: Path, metadata: str) -> None:
        """Write the archive: each column is one member, as NumPy expects it."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            # The digest is the archive's comment, not one of its arrays. A tool that selects rows and writes the arrays
            # again with np.savez would copy an array, whose digest would not match the rows; it drops the comment.
            archive.comment = self._hasher.compute_digest(metadata).to_json().encode()
            for name, dtype in COLUMN_DTYPES.items():
                self._files[name].write(self._compressors[name].flush())
                self._files[name].seek(0)
                with (
                    archive.open(_describe_member(name), "w", force_zip64=True) as member,
                    gzip.GzipFile(fileobj=self._files[name], mode="rb") as spool,
                ):
                    header = {
                        "descr": np.lib.format.dtype_to_descr(dtype.newbyteorder("<")),
                        "fortran_order": False,
                        "shape": (self._hasher.rows,),
                    }
                    np.lib.format.write_array_header_1_0(member, header)
                    shutil.copyfileobj(spool, member, _COPY_BYTES)
            with archive.open(_describe_member(METADATA_KEY), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.array(metadata), allow_pickle=False)


def _describe_member(name: str) -> zipfile.ZipInfo:
    """Describe a member without the time: the same digits give the same bytes, and a clock before 1980 is no error."""
    member = zipfile.ZipInfo(f"{name}.npy")
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


@contextlib.contextmanager
def write_npz(path: Path, metadata: FileMetadata) -> Iterator[_NpzWriter]:
    """Write an NPZ; the columns wait in temporary files beside it until the block ends without an error.

    The temporary files take about a third of a megabyte for each event; the memory holds one event.
    """
    with contextlib.ExitStack() as stack:
        writer = _NpzWriter(path.parent, stack)
        yield writer
        writer.finish(path, metadata.to_json())


@dataclass(frozen=True, kw_only=True)
class _Array:
    """An array of an archive: its header, and the stream of its values."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    values: IO[bytes]


class NpzReader:
    """Reads the digits of an NPZ."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the columns exist and hold integers."""
        with self._open() as (archive, stack):
            _open_columns(archive, stack)
            # Other tools write comments of their own. Ours names rows_sha256 and metadata_sha256: either identifies it,
            # so that a digest with a damaged byte in one name is still read as a digest, and found damaged.
            is_digest = b"_sha256" in archive.comment
            digest = archive.comment.decode(errors="replace") if is_digest else None
            return StoredTexts(metadata=_read_metadata(archive, stack), digest=digest)

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows in blocks; zipfile compares the columns' checksums after the last block."""
        with self._open() as (archive, stack):
            arrays = _open_columns(archive, stack)
            (n_rows,) = arrays["event"].shape
            for start in range(0, n_rows, BLOCK_ROWS):
                size = min(BLOCK_ROWS, n_rows - start)
                yield {name: _read_values(array, size) for name, array in arrays.items()}

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[zipfile.ZipFile, contextlib.ExitStack]]:
        with contextlib.ExitStack() as stack:
            # Opened here, because zipfile leaves a file open in which it finds no valid archive.
            file = stack.enter_context(open_regular(self._path))
            if file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX:
                message = "it is a single array"
                raise ValueError(message)
            archive = stack.enter_context(zipfile.ZipFile(file))
            _check_end(file, archive)
            yield archive, stack


def _open_columns(archive: zipfile.ZipFile, stack: contextlib.ExitStack) -> dict[str, _Array]:
    arrays = {name: _open_array(archive, stack, name) for name in COLUMN_DTYPES}
    expected = arrays["event"].shape
    for name, array in arrays.items():
        problem = None
        if array.dtype.kind not in "iu":
            problem = f"{name} must hold integers, but holds {array.dtype}"
        elif array.shape != expected or len(array.shape) != 1:
            problem = (
                "all columns must be one-dimensional and of equal length, but "
                f"{name} has the shape {array.shape} and event {expected}"
            )
        if problem is not None:
            message = f"does not hold the columns of Digits: {problem}"
            raise ContentError(message)
    return arrays


def _open_array(archive: zipfile.ZipFile, stack: contextlib.ExitStack, name: str) -> _Array:
    """Open an array and read its header, which may claim anything."""
    entry = _find_entry(archive, name)
    values = stack.enter_context(archive.open(entry))
    dtype, shape, header_bytes = _read_header(values)
    expected_bytes = math.prod(shape) * dtype.itemsize
    n_bytes = entry.file_size - header_bytes
    if dtype.hasobject or min(shape, default=0) < 0 or expected_bytes != n_bytes:
        message = f"{name} claims to be an array of {dtype} of the shape {shape}, but has {n_bytes:,} bytes"
        raise ValueError(message)
    return _Array(dtype=dtype, shape=shape, values=values)


def _read_metadata(archive: zipfile.ZipFile, stack: contextlib.ExitStack) -> str | None:
    if f"{METADATA_KEY}.npy" not in archive.namelist():
        return None
    array = _open_array(archive, stack, METADATA_KEY)
    if array.dtype.kind != "U" or array.shape != ():
        message = f"{METADATA_KEY} must be a text, but is an array of {array.dtype} of the shape {array.shape}"
        raise ValueError(message)
    size = array.dtype.itemsize
    if size > _CHARACTER_BYTES * MAX_METADATA_BYTES:
        n_characters = size // _CHARACTER_BYTES
        message = f"has metadata of {n_characters:,} characters, expected at most {MAX_METADATA_BYTES:,}"
        raise ContentError(message)
    return str(np.frombuffer(array.values.read(), dtype=array.dtype, count=1)[0]) if size else ""


def _check_end(file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Check that the archive ends with its whole comment; zipfile accepts a truncated one."""
    end = _END_OF_ARCHIVE.size + len(archive.comment)
    file.seek(-end, io.SEEK_END)
    signature, length = _END_OF_ARCHIVE.unpack(file.read(_END_OF_ARCHIVE.size))
    if signature != b"PK\5\6" or length != len(archive.comment):
        message = "its end is missing"
        raise ValueError(message)


def _find_entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    found = [entry for entry in archive.infolist() if entry.filename == f"{name}.npy"]
    if len(found) != 1:
        message = f"it has {len(found) or 'no'} arrays {name}, expected one"
        raise ValueError(message)
    if found[0].compress_type not in _METHODS:
        message = f"the array {name} is compressed by a method that NumPy does not use"
        raise ValueError(message)
    return found[0]


def _read_header(stream: IO[bytes]) -> tuple[np.dtype[np.generic], tuple[int, ...], int]:
    """Read an array's header; NumPy reads a header of any length before it finds it too long."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): (2, np.lib.format.read_array_header_1_0), (2, 0): (4, np.lib.format.read_array_header_2_0)}
    if version not in readers:
        message = f"an array has the format {version}, expected one of {', '.join(map(str, readers))}"
        raise ValueError(message)
    n_length_bytes, read = readers[version]
    length_bytes = stream.read(n_length_bytes)
    length = int.from_bytes(length_bytes, "little")
    if length > _MAX_HEADER_BYTES:
        message = f"an array has a header of {length:,} bytes, expected at most {_MAX_HEADER_BYTES:,}"
        raise ValueError(message)
    shape, _fortran_order, dtype = read(io.BytesIO(length_bytes + stream.read(length)))
    return dtype, shape, np.lib.format.MAGIC_LEN + n_length_bytes + length


def _read_values(array: _Array, size: int) -> NDArray[np.generic]:
    content = array.values.read(size * array.dtype.itemsize)
    return np.frombuffer(content, dtype=array.dtype, count=size)  # it raises if there are fewer
