"""The digest of a file of digits: SHA-256 of its rows and of its metadata, in whatever format they are stored.

The digest of the rows is the SHA-256 of the five columns' SHA-256, joined as bytes in the order of `COLUMN_DTYPES`; a
column's is that of its values in row order, little-endian, in the column's own type. The digest of the metadata is
the SHA-256 of their text in UTF-8.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.json_fields import Fields, NumberRange

if TYPE_CHECKING:
    from pxdbg_runtime.digits import Digits

__all__ = ["FileDigest", "RowHasher", "hash_metadata"]

_SCHEMA: Final = 1


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    """Digest of a file of digits.

    Attributes
    ----------
    rows : int
        Number of rows.
    rows_sha256, metadata_sha256 : str
        64 hexadecimal digits, as the module's docstring defines them.
    """

    rows: int
    rows_sha256: str
    metadata_sha256: str

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> FileDigest:
        """Read what `to_json` wrote.

        Raises
        ------
        JsonFieldError
            If a field is missing, or holds what it cannot hold.
        """
        fields = Fields.parse(text)
        fields.integer("schema", NumberRange(_SCHEMA, _SCHEMA))
        return cls(
            rows=fields.integer("rows", NumberRange(0)),
            rows_sha256=fields.sha256("rows_sha256"),
            metadata_sha256=fields.sha256("metadata_sha256"),
        )


class RowHasher:
    """Takes the rows of a file, block by block."""

    def __init__(self) -> None:
        self.rows = 0
        self._hashes = {name: hashlib.sha256() for name in COLUMN_DTYPES}

    def update(self, digits: Digits) -> None:
        """Take more rows."""
        self.rows += len(digits)
        for name, dtype in COLUMN_DTYPES.items():
            column = np.ascontiguousarray(getattr(digits, name), dtype=dtype.newbyteorder("<"))
            self._hashes[name].update(column.data)

    def sha256(self) -> str:
        """Give the digest of all rows so far."""
        return hashlib.sha256(b"".join(each.digest() for each in self._hashes.values())).hexdigest()


def hash_metadata(text: str) -> str:
    """Give the digest of the metadata."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
