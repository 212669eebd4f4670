"""Read digits from Parquet of any layout, ours or rewritten by other tools, in blocks of any row groups."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from pxdbg_runtime.formats.interface import (
    DIGEST_KEY,
    MAX_METADATA_BYTES,
    METADATA_KEY,
    Columns,
    ContentError,
    StoredTexts,
)
from pxdbg_runtime.formats.overlaid import OVERLAY_KEY
from pxdbg_runtime.formats.parquet_columns import check_schema, read_event_rows, read_rows, read_steps
from pxdbg_runtime.formats.parquet_layouts import COMPACT, EVENTS, MARK, find_layout
from pxdbg_runtime.formats.withheld_columns import WithheldColumns
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["ParquetReader"]

_MAX_FOOTER_BYTES: Final = 64 << 20
"""The longest footer that is read. Older releases wrote one row group per event, 315 bytes each."""
_MAX_TEXT_IN_FOOTER: Final = 4 * MAX_METADATA_BYTES
"""Arrow keeps a second copy of the metadata, in base64."""
_FOOTER_END: Final = 8
"""Bytes after the footer: its length, and PAR1."""
_NO_DIGEST: Final = (
    "is in the layout parquet-compact, whose pixels are right only while no row is missing, but another tool wrote it "
    "and left out the digest that would tell: convert the original file with pxdbg convert --format parquet, and let "
    "other tools rewrite that"
)
_SUMS: Final = (
    "holds overlaid digits, whose charges have 16 bits, expected 8: write it with pxdbg overlay --saturate 255, or "
    "read it with pandas or another tool"
)


class ParquetReader:
    """Reads the digits of a Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the columns exist and hold integers, or lists of them."""
        with self._open() as (file, _content, has_mark):
            layout = find_layout(file.schema_arrow)
            check_schema(file.schema_arrow, layout)
            stored = file.metadata.metadata or {}
            if OVERLAY_KEY.encode() in stored and str(file.schema_arrow.field("charge").type) == "uint16":
                raise ContentError(_SUMS)
            # Without the mark it is another tool's file: some copy the digest of the file that they read, with other
            # rows. In the compact layout that would be an error anyhow.
            digest = _decode_text(stored, DIGEST_KEY) if has_mark or layout is COMPACT else None
            texts = StoredTexts(
                metadata=_decode_text(stored, METADATA_KEY),
                digest=digest,
                n_events=file.metadata.num_rows if layout.lists else None,
            )
        if has_mark and digest is None:
            message = "its digest is missing"
            raise ValueError(message)
        if layout is COMPACT and digest is None:
            raise ContentError(_NO_DIGEST)
        return texts

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows in blocks; of a row group, only the compressed bytes are in memory at once."""
        with self._open() as (file, content, _has_mark):
            layout = find_layout(file.schema_arrow)
            check_schema(file.schema_arrow, layout)
            if layout is COMPACT:
                yield from read_steps(file)
            elif layout is EVENTS:
                yield from read_event_rows(file, content)
            else:
                yield from read_rows(file, layout)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, WithheldColumns, bool]]:
        """Open the file once: as a `pyarrow.parquet.ParquetFile`, what that reads, and whether it has our mark."""
        import pyarrow.parquet

        with open_regular(self._path) as content:
            footer_start = _find_footer(content)  # before pyarrow reads all of the footer
            content.seek(max(0, footer_start - len(MARK)))
            has_mark = content.read(len(MARK)) == MARK
            # A file, not a path: some readers take a path such as event=5/bg.parquet for a column, and pyarrow wants
            # paths in UTF-8. No buffer_size, because with one pyarrow 17 fails on valid files ("Cannot shrink read
            # buffer").
            columns = WithheldColumns(content)
            with pyarrow.parquet.ParquetFile(
                columns,
                page_checksum_verification=True,
                pre_buffer=False,
                thrift_string_size_limit=_MAX_TEXT_IN_FOOTER,
            ) as file:
                yield file, columns, has_mark


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


def _decode_text(stored: dict[bytes, bytes], key: str) -> str | None:
    content = stored.get(key.encode())
    if content is None:
        return None
    if len(content) > MAX_METADATA_BYTES:
        message = f"has metadata of {len(content):,} bytes, expected at most {MAX_METADATA_BYTES:,}"
        raise ContentError(message)
    return content.decode()
