"""Write digits as HDF5: datasets that grow, chunk by chunk.

HDF5 calls Python to write its file, and may crash the process if that raises. Python's handlers of signals run in the
main thread, at any moment: so HDF5 runs in another one.
"""

from __future__ import annotations

import contextlib
import io
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.hdf5_layout import DIGIT_COLUMNS, EVENT, OFFSET, OFFSET_DTYPE
from pxdbg_runtime.formats.interface import DIGEST_KEY, METADATA_KEY
from pxdbg_runtime.task_threads import TaskThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["write_hdf5"]

_CHUNK_ROWS: Final = 1 << 16
"""Rows of a chunk, about one event; so many digits wait until they are written."""
_MAX_WAITING: Final = 128
_CACHE_BYTES: Final = 1 << 20
"""Cache of the chunks of a dataset, for HDF5 2 would keep 8 MiB of each; chunks are written once, in order."""
_GZIP_LEVEL: Final = 4
T = TypeVar("T")


class _Sink:
    """A file that keeps its first error, and ignores what is written after it.

    If an operation fails, for instance because the disk is full, HDF5 can neither go on nor close its file: the process
    may crash later, when Python removes what refers to it.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: BaseException | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place."""
        return self._try(lambda: self._file.seek(offset, whence), offset)

    def tell(self) -> int:
        """Return the place."""
        return self._try(self._file.tell, 0)

    def read(self, size: int) -> bytes:
        """Read bytes."""
        return self._try(lambda: self._file.read(size), bytes(size))

    def write(self, content: bytes) -> int:
        """Write bytes."""
        return self._try(lambda: self._file.write(content), len(content))

    def truncate(self, size: int) -> int:
        """Cut the file, or extend it."""
        return self._try(lambda: self._file.truncate(size), size)

    def flush(self) -> None:
        """Write what is buffered."""
        self._try(self._file.flush, None)

    def raise_error(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error

    def _try(self, operation: Callable[[], T], otherwise: T) -> T:
        if self._error is None:
            try:
                return operation()
            except BaseException as error:  # noqa: BLE001  # an interrupt too: `raise_error` raises it
                self._error = error
        return otherwise


class _Hdf5Writer:
    def __init__(self, file: IO[bytes], metadata: FileMetadata) -> None:
        self._sink = _Sink(file)
        self._metadata = metadata.to_json()
        self._event_numbers = metadata.event_numbers
        self._n_digits = np.zeros(len(self._event_numbers), dtype=OFFSET_DTYPE)
        self._file: Any = None
        self._datasets: dict[str, Any] = {}
        self._hasher = RowHasher()
        self._waiting: list[Digits] = []
        self._n_waiting = 0

    def open(self) -> None:
        """Create the file's datasets."""
        import h5py

        self._make_text_type = h5py.string_dtype
        self._file = h5py.File(self._sink, "w", libver=("v110", "v110"), rdcc_nbytes=_CACHE_BYTES)
        self._datasets = {name: self._create_dataset(name, COLUMN_DTYPES[name]) for name in DIGIT_COLUMNS}
        self._sink.raise_error()

    def write(self, digits: Digits) -> None:
        """Append digits; they are written when they fill a chunk."""
        self._hasher.update(digits)
        if not len(digits):
            return
        numbers, counts = np.unique(digits.event, return_counts=True)
        self._n_digits[np.searchsorted(self._event_numbers, numbers)] += counts
        self._waiting.append(digits)
        self._n_waiting += len(digits)
        if self._n_waiting >= _CHUNK_ROWS or len(self._waiting) >= _MAX_WAITING:
            self._write_waiting()

    def finish(self) -> None:
        """Write the last digits, the events, the metadata and the digest."""
        self._write_waiting()
        _append(self._create_dataset(EVENT, COLUMN_DTYPES[EVENT]), self._event_numbers)
        offset = np.concatenate([np.zeros(1, OFFSET_DTYPE), np.cumsum(self._n_digits)])
        _append(self._create_dataset(OFFSET, OFFSET_DTYPE), offset)
        self._store_text(METADATA_KEY, self._metadata)
        self._store_text(DIGEST_KEY, self._hasher.compute_digest(self._metadata).to_json())
        self._close()
        self._sink.raise_error()

    def abandon(self) -> None:
        """Close a file that will be removed."""
        with contextlib.suppress(Exception):
            self._close()

    def _close(self) -> None:
        """Close the file, and let go of it in this thread: Python loses what a handler raises while h5py does."""
        file, self._file = self._file, None
        self._datasets.clear()
        file.close()

    def _write_waiting(self) -> None:
        digits = Digits.concatenate(self._waiting)
        self._waiting, self._n_waiting = [], 0
        for name, dataset in self._datasets.items():
            _append(dataset, getattr(digits, name))
        self._sink.raise_error()

    def _create_dataset(self, name: str, dtype: np.dtype[np.generic]) -> Any:  # noqa: ANN401
        return self._file.create_dataset(
            name,
            shape=(0,),
            maxshape=(None,),
            dtype=dtype.newbyteorder("<"),
            chunks=(_CHUNK_ROWS,),
            compression="gzip",
            compression_opts=_GZIP_LEVEL,
            shuffle=True,
            fletcher32=True,
        )

    def _store_text(self, name: str, text: str) -> None:
        # Of fixed length, because HDF5 keeps texts of variable length where they have no checksum.
        content = text.encode()
        self._file.attrs.create(name, content, dtype=self._make_text_type("utf-8", len(content)))


class _ThreadWriter:
    """Passes digits to a writer in its thread."""

    def __init__(self, writer: _Hdf5Writer, thread: TaskThreads) -> None:
        self._writer, self._thread = writer, thread

    def write(self, digits: Digits) -> None:
        """Append digits."""
        self._thread.run(lambda: self._writer.write(digits))


@contextlib.contextmanager
def write_hdf5(path: Path, metadata: FileMetadata) -> Iterator[_ThreadWriter]:
    """Write an HDF5 file; it is complete when the block ends without an error."""
    with path.open("w+b") as file:
        writer, thread = _Hdf5Writer(file, metadata), TaskThreads()
        try:
            thread.run(writer.open)
            yield _ThreadWriter(writer, thread)
            thread.run(writer.finish)
        except BaseException:
            if thread.belong_to_this_process:
                thread.run(writer.abandon)
            raise
        finally:
            thread.end()


def _append(dataset: Any, values: NDArray[np.generic]) -> None:  # noqa: ANN401
    if len(values):
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values
