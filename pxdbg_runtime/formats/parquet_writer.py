"""Write digits as Parquet in one of its layouts: many whole events share a row group."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.formats.digest import RowHasher
from pxdbg_runtime.formats.interface import DIGEST_KEY, METADATA_KEY
from pxdbg_runtime.formats.parquet_layouts import MARK, ParquetLayout
from pxdbg_runtime.formats.parquet_sink import ParquetSink
from pxdbg_runtime.formats.whole_events import EventAssembler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["write_parquet"]

_GROUP_ROWS: Final = 1_000_000
_GROUP_EVENTS: Final = 128
"""A row group is written when it has this many digits (15 MB) or this many events."""


class _ParquetWriter:
    def __init__(self, layout: ParquetLayout, file: ParquetSink, metadata: FileMetadata) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._layout = layout
        self._sink = pa.PythonFile(file, "w")
        self._metadata = metadata.to_json()
        self._schema = layout.build_schema({METADATA_KEY: self._metadata})
        self._make_table = pa.Table.from_arrays
        self._file = pyarrow.parquet.ParquetWriter(
            self._sink, self._schema, compression="zstd", write_page_checksum=True, **layout.options
        )
        self._hasher = RowHasher()
        self._assembler = EventAssembler(metadata.event_numbers)
        self._waiting: list[tuple[int, Digits]] = []
        self._n_waiting = 0

    def write(self, digits: Digits) -> None:
        """Append digits; whole events are written when they fill a row group."""
        self._hasher.update(digits)
        self._take_events(self._assembler.add(digits))

    def finish(self) -> None:
        """Write the last row group, the digest, and the footer."""
        self._take_events(self._assembler.finish())
        self._write_group()
        digest = self._hasher.compute_digest(self._metadata)
        # Not in the schema's metadata: those survive when pyarrow rewrites the file with other rows.
        self._file.add_key_value_metadata({DIGEST_KEY: digest.to_json()})
        self._sink.write(MARK)
        self._file.close()

    def _take_events(self, events: Iterable[tuple[int, Digits]]) -> None:
        for number, digits in events:
            if not len(digits) and not self._layout.lists:
                continue
            self._waiting.append((number, digits))
            self._n_waiting += len(digits)
            if self._n_waiting >= _GROUP_ROWS or len(self._waiting) >= _GROUP_EVENTS:
                self._write_group()

    def _write_group(self) -> None:
        # Spark 3.3 refuses a file with a row group of no rows.
        if not self._waiting:
            return
        columns = self._layout.build_columns(self._waiting)
        self._waiting, self._n_waiting = [], 0
        table = self._make_table(columns, schema=self._schema)
        self._file.write_table(table, row_group_size=len(table))  # or pyarrow begins another within an event


@contextlib.contextmanager
def write_parquet(layout: ParquetLayout, path: Path, metadata: FileMetadata) -> Iterator[_ParquetWriter]:
    """Write a Parquet file in a layout; its footer is written when the block ends without an error."""
    with ParquetSink(path) as file:
        writer = _ParquetWriter(layout, file, metadata)
        yield writer
        writer.finish()
