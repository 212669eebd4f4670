"""The formats of digit files, chosen by the suffix of a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.npz import NpzReader, write_npz
from pxdbg_runtime.formats.parquet import ParquetReader, write_parquet
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pxdbg_runtime.formats.interface import DigitWriter, FormatReader

__all__ = ["FORMATS", "SUFFIXES", "SUFFIX_LIST", "FileFormat", "find_format"]


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """One format.

    Attributes
    ----------
    name : str
    reader : callable
        Takes the path of a file to read.
    open_writer : callable
        Takes the path of a file to write and the JSON of its `Provenance`. The file is complete when the block ends.
    package, extra : str or None
        The optional package that the format needs, and the extra of pxdbg-runtime that installs it.
    """

    name: str
    reader: Callable[[Path], FormatReader]
    open_writer: Callable[[Path, str], AbstractContextManager[DigitWriter]]
    package: str | None = None
    extra: str | None = None


FORMATS: Final = {
    ".parquet": FileFormat(
        name="Parquet", reader=ParquetReader, open_writer=write_parquet, package="pyarrow", extra="parquet"
    ),
    ".npz": FileFormat(name="NPZ", reader=NpzReader, open_writer=write_npz),
}
SUFFIXES: Final = tuple(FORMATS)
SUFFIX_LIST: Final = " or ".join(SUFFIXES)


def find_format(path: Path) -> FileFormat:
    """Find the format that the suffix of a path names, and check that its package is installed.

    Raises
    ------
    ArgumentValueError
        If the path ends in none of `SUFFIXES`.
    MissingPackageError
        If the format needs a package that is not installed.
    """
    if path.suffix not in FORMATS:
        raise ArgumentValueError("path", f"{path} must end in {SUFFIX_LIST}, the formats of digit files.")
    found = FORMATS[path.suffix]
    if found.package is not None and found.extra is not None:
        require(found.package, extra=found.extra, purpose=found.name)
    return found
