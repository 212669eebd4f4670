"""Let pyarrow check what a Parquet file's footer says of its columns, without reading them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WithheldColumns"]


class WithheldColumns:
    """A file for `pyarrow.parquet.ParquetFile`, whose columns can be withheld.

    pyarrow (26.0 at least) ends the process if Python asks it for what a damaged footer says of a column; where it
    reads the column itself, that is an exception.
    """

    def __init__(self, content: BinaryIO) -> None:
        self._content = content
        self._is_withheld = False

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._content.closed

    def seek(self, position: int, whence: int = 0) -> int:
        """Go to a position, as in other files."""
        return self._content.seek(position, whence)

    def tell(self) -> int:
        """Tell the position."""
        return self._content.tell()

    def read(self, n_bytes: int = -1) -> bytes:
        """Read bytes, unless they are withheld."""
        if self._is_withheld:
            raise _WithheldError
        return self._content.read(n_bytes)

    def check_footer(self, file: Any, group: int, columns: Iterable[str]) -> None:  # noqa: ANN401
        """Check what the footer says of some columns of a row group; raises pyarrow's exceptions.

        Parameters
        ----------
        file : pyarrow.parquet.ParquetFile
            Reads this file.
        group : int
        columns : iterable of str
        """
        self._is_withheld = True
        try:
            for name in columns:
                options = {"row_groups": [group], "columns": [name], "use_threads": False}
                with contextlib.suppress(_WithheldError):
                    next(file.iter_batches(batch_size=1, **options), None)
        finally:
            self._is_withheld = False


class _WithheldError(Exception):
    """The footer is sound: the column itself was wanted."""
