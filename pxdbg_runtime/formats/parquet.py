"""Digits as Parquet: many events share a row group, and rows are read in blocks of any row groups."""

from __future__ import annotations

import contextlib
import io
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.interface import (
    BLOCK_ROWS,
    DIGEST_KEY,
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

    import numpy as np
    from numpy.typing import NDArray

    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["ParquetReader", "write_parquet"]

_MARK: Final = b"pxdbg_digest\n"
"""Bytes that our writer puts between the rows and the footer; no other tool writes there. They say that the footer must
hold a digest. Parquet has no checksum of the footer, and a damaged byte in it can hide the metadata with the digest:
without this mark, such a file would pass as one of another tool."""
_GROUP_ROWS: Final = 1_000_000
_GROUP_WRITES: Final = 128
"""A row group is written when it has this many rows (15 MB) or this many events."""
_MAX_FOOTER_BYTES: Final = 64 << 20
"""The longest footer that is read. Older releases wrote one row group per event, 315 bytes each."""
_MAX_TEXT_IN_FOOTER: Final = 4 * MAX_METADATA_BYTES
"""Arrow keeps a second copy of the metadata, in base64."""
_FOOTER_END: Final = 8
"""Bytes after the footer: its length, and PAR1."""


class _ParquetWriter:
    def __init__(self, file: IO[bytes], metadata: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._sink = pa.PythonFile(file, "w")
        self._metadata = metadata
        self._schema = pa.schema(
            [pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name, dtype in COLUMN_DTYPES.items()],
            metadata={METADATA_KEY: metadata},
        )
        self._make_table = pa.Table.from_arrays
        self._file = pyarrow.parquet.ParquetWriter(
            self._sink, self._schema, compression="zstd", write_page_checksum=True
        )
        self._hasher = RowHasher()
        self._waiting: list[Digits] = []
        self._n_waiting = 0

    def write(self, digits: Digits) -> None:
        """Append digits; they are written when they fill a row group."""
        self._hasher.update(digits)
        if len(digits):
            self._waiting.append(digits)
            self._n_waiting += len(digits)
        if self._n_waiting >= _GROUP_ROWS or len(self._waiting) >= _GROUP_WRITES:
            self._write_group()

    def finish(self) -> None:
        """Write the last row group, the digest, and the footer."""
        self._write_group()
        digest = self._hasher.compute_digest(self._metadata)
        # Not in the schema's metadata: those survive when pyarrow rewrites the file with other rows.
        self._file.add_key_value_metadata({DIGEST_KEY: digest.to_json()})
        self._sink.write(_MARK)
        self._file.close()

    def abandon(self) -> None:
        """Close a file that will be removed."""
        with contextlib.suppress(Exception):
            self._file.close()

    def _write_group(self) -> None:
        # Spark 3.3 refuses a file with a row group of no rows.
        if not self._waiting:
            return
        digits = Digits.concatenate(self._waiting)
        self._waiting, self._n_waiting = [], 0
        columns = [getattr(digits, name) for name in COLUMN_DTYPES]
        self._file.write_table(self._make_table(columns, schema=self._schema))


@contextlib.contextmanager
def write_parquet(path: Path, metadata: FileMetadata) -> Iterator[_ParquetWriter]:
    """Write a Parquet file; its footer is written when the block ends without an error."""
    with path.open("wb") as file:
        writer = _ParquetWriter(file, metadata.to_json())
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.finish()


class ParquetReader:
    """Reads the digits of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the columns exist and hold integers."""
        with self._open() as (file, has_mark):
            _check_schema(file.schema_arrow)
            stored = file.metadata.metadata or {}
            # Without the mark it is another tool's file: some copy the digest of the file that they read, with other
            # rows.
            digest = _decode_text(stored, DIGEST_KEY) if has_mark else None
            texts = StoredTexts(metadata=_decode_text(stored, METADATA_KEY), digest=digest)
        if has_mark and digest is None:
            message = "its digest is missing"
            raise ValueError(message)
        return texts

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows in blocks; of a row group, only the compressed bytes are in memory at once."""
        with self._open() as (file, _has_mark):
            _check_schema(file.schema_arrow)
            for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=list(COLUMN_DTYPES), use_threads=False):
                yield {name: _convert_column(batch, name) for name in COLUMN_DTYPES}

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, bool]]:
        """Open the file once: as a `pyarrow.parquet.ParquetFile`, and whether it has our writer's mark."""
        import pyarrow.parquet

        with open_regular(self._path) as content:
            footer_start = _find_footer(content)  # before pyarrow reads all of the footer
            content.seek(max(0, footer_start - len(_MARK)))
            has_mark = content.read(len(_MARK)) == _MARK
            # A file, not a path: some readers take a path such as event=5/bg.parquet for a column, and pyarrow wants
            # paths in UTF-8. No buffer_size, because with one pyarrow 17 fails on valid files ("Cannot shrink read
            # buffer").
            with pyarrow.parquet.ParquetFile(
                content,
                page_checksum_verification=True,
                pre_buffer=False,
                thrift_string_size_limit=_MAX_TEXT_IN_FOOTER,
            ) as file:
                yield file, has_mark


def _find_footer(content: BinaryIO) -> int:
    """Find where the footer begins; 0 or less if the file has none."""
    size = content.seek(0, io.SEEK_END)
    content.seek(max(0, size - _FOOTER_END))
    length = int.from_bytes(content.read(4), "little")
    if _MAX_FOOTER_BYTES < length < size:
        message = (
            f"has a footer of {length / 1e6:,.0f} MB, expected at most {_MAX_FOOTER_BYTES / 1e6:.0f} MB: "
            "generate it again, or write it with larger row groups"
        )
        raise ContentError(message)
    return size - _FOOTER_END - length


def _check_schema(schema: Any) -> None:  # noqa: ANN401
    import pyarrow as pa

    for name in COLUMN_DTYPES:
        indices = schema.get_all_field_indices(name)
        if len(indices) != 1:
            message = f"it has {len(indices) or 'no'} columns {name}, expected one"
            raise ValueError(message)
        kind = schema.field(indices[0]).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not pa.types.is_integer(kind):
            message = f"does not hold the columns of Digits: {name} must hold integers, but holds {kind}"
            raise ContentError(message)


def _convert_column(batch: Any, name: str) -> NDArray[np.generic]:  # noqa: ANN401
    import pyarrow as pa

    column = batch.column(batch.schema.get_field_index(name))
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if column.null_count:
        message = f"does not hold the columns of Digits: {name} has {column.null_count} empty values"
        raise ContentError(message)
    values: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
    return values


def _decode_text(stored: dict[bytes, bytes], key: str) -> str | None:
    content = stored.get(key.encode())
    if content is None:
        return None
    if len(content) > MAX_METADATA_BYTES:
        message = f"has metadata of {len(content):,} bytes, expected at most {MAX_METADATA_BYTES:,}"
        raise ContentError(message)
    return content.decode()
