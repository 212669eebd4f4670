"""The digest of a digit file: SHA-256 of its rows and of its metadata, the same in every format.

The digest of the rows is the SHA-256 of the five columns' SHA-256, joined as bytes in the order of `COLUMN_DTYPES`; a
column's is that of its values in row order, little-endian, in the column's own type. The digest of the metadata is
the SHA-256 of their text in UTF-8.
"""

from __future__ import annotations

import hashlib
import json
import operator
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import numpy as np
from msgspec import Meta, structs

from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.json_records import Record, Sha256, decode_record

if TYPE_CHECKING:
    from pxdbg_runtime.digits import Digits

__all__ = ["FileDigest", "RowHasher", "StoredRecord", "hash_metadata"]

_SCHEMA: Final = 1


class _SchemaField(Record, frozen=True, forbid_unknown_fields=False):
    schema: Literal[1]


class StoredRecord(Record, frozen=True, forbid_unknown_fields=False):
    """Base of the texts that a digit file holds: JSON with a field `schema` first; unknown fields are ignored."""

    def to_json(self) -> str:
        """Write it as JSON; raises TypeError if a field is neither text, a number, nor a list of them."""
        return json.dumps({"schema": _SCHEMA, **structs.asdict(self)}, default=operator.index)  # NumPy's integers

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; raises `JsonFieldError` if a field is missing or invalid."""
        decode_record(text, _SchemaField)
        return decode_record(text, cls)


class FileDigest(StoredRecord, frozen=True):
    """Digest of a digit file.

    Attributes
    ----------
    rows : int
        Number of rows.
    rows_sha256, metadata_sha256 : str
        64 hexadecimal digits, as the module's docstring defines them.
    """

    rows: Annotated[int, Meta(ge=0)]
    rows_sha256: Sha256
    metadata_sha256: Sha256


class RowHasher:
    """Hashes the rows of a file, block by block."""

    def __init__(self) -> None:
        self.rows = 0
        self._hashes = {name: hashlib.sha256() for name in COLUMN_DTYPES}

    def update(self, digits: Digits) -> None:
        """Add rows."""
        self.rows += len(digits)
        for name, dtype in COLUMN_DTYPES.items():
            column = np.ascontiguousarray(getattr(digits, name), dtype=dtype.newbyteorder("<"))
            self._hashes[name].update(column.data)

    def compute_digest(self, metadata: str) -> FileDigest:
        """Compute the digest of all rows so far and of the metadata."""
        return FileDigest(rows=self.rows, rows_sha256=self._hash_rows(), metadata_sha256=hash_metadata(metadata))

    def matches(self, digest: FileDigest) -> bool:
        """Tell whether the rows so far are those of a digest."""
        return (self.rows, self._hash_rows()) == (digest.rows, digest.rows_sha256)

    def _hash_rows(self) -> str:
        return hashlib.sha256(b"".join(each.digest() for each in self._hashes.values())).hexdigest()


def hash_metadata(text: str) -> str:
    """Compute the digest of the metadata."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
