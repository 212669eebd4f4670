"""Digits as Parquet: many events share a row group, and rows are read in blocks, whatever the row groups are."""

from __future__ import annotations

import contextlib
import io
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final

from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats.digest import FileDigest, RowHasher, hash_metadata
from pxdbg_runtime.formats.sources import (
    BLOCK_ROWS,
    DIGEST_KEY,
    MAX_METADATA_BYTES,
    METADATA_KEY,
    Columns,
    StoredTexts,
)
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ParquetSource", "write_parquet"]

_MARK: Final = b"pxdbg_digest\n"
"""Bytes that our writer puts between the rows and the footer; no other tool writes there. They say that the footer must
hold a digest. Parquet has no checksum of the footer, and a damaged byte in it can hide the metadata with the digest: without
this mark, such a file would pass as one of another tool."""
_ROWS_OF_GROUP: Final = 1_000_000
_WRITES_OF_GROUP: Final = 128
"""A row group is written when either is reached: 15 MB, or so many events."""
_MAX_FOOTER_BYTES: Final = 64 << 20
"""The longest footer that is read. Older releases wrote a row group an event, 315 bytes each."""
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
        self._fields = pa.schema(
            [pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name, dtype in COLUMN_DTYPES.items()],
            metadata={METADATA_KEY: metadata},
        )
        self._table_of = pa.Table.from_arrays
        self._file = pyarrow.parquet.ParquetWriter(
            self._sink, self._fields, compression="zstd", write_page_checksum=True
        )
        self._hasher = RowHasher()
        self._waiting: list[Digits] = []
        self._n_waiting = 0

    def write(self, digits: Digits) -> None:
        """Append digits; they go to disk when there are enough of them."""
        self._hasher.update(digits)
        if len(digits):
            self._waiting.append(digits)
            self._n_waiting += len(digits)
        if self._n_waiting >= _ROWS_OF_GROUP or len(self._waiting) >= _WRITES_OF_GROUP:
            self._write_group()

    def finish(self) -> None:
        """Write what waits, the digest, and the footer."""
        self._write_group()
        digest = FileDigest(
            rows=self._hasher.rows,
            rows_sha256=self._hasher.sha256(),
            metadata_sha256=hash_metadata(self._metadata),
        )
        # Not in the schema's metadata: those survive when pyarrow rewrites the file with other rows.
        self._file.add_key_value_metadata({DIGEST_KEY: digest.to_json()})
        self._sink.write(_MARK)
        self._file.close()

    def abandon(self) -> None:
        """Close a file that nobody will see."""
        with contextlib.suppress(Exception):
            self._file.close()

    def _write_group(self) -> None:
        # Spark 3.3 refuses a file with a row group of no rows.
        if not self._waiting:
            return
        digits = Digits.concatenate(self._waiting)
        self._waiting, self._n_waiting = [], 0
        columns = [getattr(digits, name) for name in COLUMN_DTYPES]
        self._file.write_table(self._table_of(columns, schema=self._fields))


@contextlib.contextmanager
def write_parquet(path: Path, metadata: str) -> Iterator[_ParquetWriter]:
    """Write a Parquet file; its footer is written when the block ends well."""
    with path.open("wb") as file:
        writer = _ParquetWriter(file, metadata)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        writer.finish()


class ParquetSource:
    """Reads the digits of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def texts(self) -> StoredTexts:
        """Read the texts, and check that the columns are there and hold integers."""
        with self._opened() as (file, has_mark):
            self._check_fields(file.schema_arrow)
            stored = file.metadata.metadata or {}
            # Without the mark it is another tool's file: some copy the digest of the file that they read, of other rows.
            digest = self._text(stored, DIGEST_KEY) if has_mark else None
            texts = StoredTexts(metadata=self._text(stored, METADATA_KEY), digest=digest)
        if has_mark and digest is None:
            message = "its digest is missing"
            raise ValueError(message)
        return texts

    def blocks(self) -> Iterator[Columns]:
        """Read the rows in blocks; of a row group, only the compressed bytes are in memory at once."""
        with self._opened() as (file, _has_mark):
            self._check_fields(file.schema_arrow)
            for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=list(COLUMN_DTYPES), use_threads=False):
                yield {name: self._column(batch, name) for name in COLUMN_DTYPES}

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, bool]]:
        """Open the file once: give what pyarrow makes of it, and whether our writer's mark is in it."""
        import pyarrow.parquet

        with open_regular(self._path) as content:
            footer_start = self._footer_start(content)  # before pyarrow reads all of the footer
            content.seek(max(0, footer_start - len(_MARK)))
            has_mark = content.read(len(_MARK)) == _MARK
            # A file, not a path: from a path such as event=5/bg.parquet some readers take a column, and pyarrow wants paths
            # in UTF-8. Without a buffer_size, as pyarrow 17 then fails on sound files ("Cannot shrink read buffer").
            with pyarrow.parquet.ParquetFile(
                content,
                page_checksum_verification=True,
                pre_buffer=False,
                thrift_string_size_limit=_MAX_TEXT_IN_FOOTER,
            ) as file:
                yield file, has_mark

    def _footer_start(self, content: BinaryIO) -> int:
        """Find where the footer begins; 0 or less if the file has none."""
        size = content.seek(0, io.SEEK_END)
        content.seek(max(0, size - _FOOTER_END))
        length = int.from_bytes(content.read(4), "little")
        if _MAX_FOOTER_BYTES < length < size:
            message = (
                f"{self._path} has a footer of {length / 1e6:,.0f} MB, expected at most {_MAX_FOOTER_BYTES / 1e6:.0f} MB: "
                "generate it again, or write it with larger row groups."
            )
            raise DigitFileError(self._path, message)
        return size - _FOOTER_END - length

    def _check_fields(self, fields: Any) -> None:  # noqa: ANN401
        import pyarrow as pa

        for name in COLUMN_DTYPES:
            places = fields.get_all_field_indices(name)
            if len(places) != 1:
                message = f"it has {len(places) or 'no'} columns {name}, expected one"
                raise ValueError(message)
            kind = fields.field(places[0]).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if not pa.types.is_integer(kind):
                message = (
                    f"{self._path} does not hold the columns of Digits: {name} must hold integers, but holds {kind}."
                )
                raise DigitFileError(self._path, message)

    def _column(self, batch: Any, name: str) -> NDArray[np.generic]:  # noqa: ANN401
        import pyarrow as pa

        column = batch.column(batch.schema.get_field_index(name))
        if isinstance(column, pa.DictionaryArray):
            column = column.dictionary_decode()
        if column.null_count:
            message = f"{self._path} does not hold the columns of Digits: {name} has {column.null_count} empty values."
            raise DigitFileError(self._path, message)
        values: NDArray[np.generic] = column.to_numpy(zero_copy_only=False)
        return values

    def _text(self, stored: dict[bytes, bytes], key: str) -> str | None:
        content = stored.get(key.encode())
        if content is None:
            return None
        if len(content) > MAX_METADATA_BYTES:
            message = f"{self._path} has metadata of {len(content):,} bytes, expected at most {MAX_METADATA_BYTES:,}."
            raise DigitFileError(self._path, message)
        return content.decode()
