"""The formats of digit files: chosen by name or by the suffix of a path to write, by the suffix of a path to read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.checks import check_path
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.hdf5 import Hdf5Reader
from pxdbg_runtime.formats.hdf5_writer import write_hdf5
from pxdbg_runtime.formats.npz import NpzReader, write_npz
from pxdbg_runtime.formats.overlay_writer import write_overlay
from pxdbg_runtime.formats.parquet import ParquetReader
from pxdbg_runtime.formats.parquet_layouts import COMPACT, EVENTS, FLAT
from pxdbg_runtime.formats.parquet_writer import write_parquet
from pxdbg_runtime.formats.rntuple import write_rntuple
from pxdbg_runtime.formats.root_file import RootReader
from pxdbg_runtime.formats.ttree import write_ttree
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.formats.interface import DigitWriter, FormatReader
    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["FORMATS", "SUFFIXES", "SUFFIX_LIST", "FileFormat", "find_format", "open_reader"]


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """One format.

    Attributes
    ----------
    title : str
        What people call it; subject of messages.
    summary : str
        What its files are, in a few words, for the help of the command line.
    suffixes : tuple of str
        Suffixes of its files; formats may share them.
    reader : callable
        Takes the path of a file to read. Formats that share a suffix share a reader, which finds out what the file is.
    open_writer : callable
        Takes the path of a file to write and its `FileMetadata`. The file is complete when the block ends.
    package, extra : str or None
        The optional package that the format needs, and the extra of pxdbg-runtime that installs it.
    """

    title: str
    summary: str
    suffixes: tuple[str, ...]
    reader: Callable[[Path], FormatReader]
    open_writer: Callable[[Path, FileMetadata], AbstractContextManager[DigitWriter]]
    package: str | None = None
    extra: str | None = None


FORMATS: Final = {
    "parquet": FileFormat(
        title="Parquet",
        summary="a row for each digit",
        suffixes=(".parquet",),
        reader=ParquetReader,
        open_writer=partial(write_parquet, FLAT),
        package="pyarrow",
        extra="parquet",
    ),
    "parquet-events": FileFormat(
        title="Parquet",
        summary="a row for each event, with lists",
        suffixes=(".parquet",),
        reader=ParquetReader,
        open_writer=partial(write_parquet, EVENTS),
        package="pyarrow",
        extra="parquet",
    ),
    "parquet-compact": FileFormat(
        title="Parquet",
        summary="smaller by a fifth, with differences of pixels",
        suffixes=(".parquet",),
        reader=ParquetReader,
        open_writer=partial(write_parquet, COMPACT),
        package="pyarrow",
        extra="parquet",
    ),
    "npz": FileFormat(
        title="NPZ",
        summary="arrays of NumPy, an element for each digit",
        suffixes=(".npz",),
        reader=NpzReader,
        open_writer=write_npz,
    ),
    "hdf5": FileFormat(
        title="HDF5",
        summary="datasets with an element for each digit, and where each event begins",
        suffixes=(".h5", ".hdf5"),
        reader=Hdf5Reader,
        open_writer=write_hdf5,
        package="h5py",
        extra="hdf5",
    ),
    "ttree": FileFormat(
        title="A ROOT file",
        summary="a TTree with an entry for each event",
        suffixes=(".root",),
        reader=RootReader,
        open_writer=write_ttree,
        package="uproot",
        extra="uproot",
    ),
    "rntuple": FileFormat(
        title="A ROOT file",
        summary="an RNTuple with an entry for each event",
        suffixes=(".root",),
        reader=RootReader,
        open_writer=write_rntuple,
        package="uproot",
        extra="uproot",
    ),
    "overlay": FileFormat(
        title="An overlay file",
        summary="an entry for each event, for BGOverlayInput of basf2",
        suffixes=(".root",),
        reader=RootReader,
        open_writer=write_overlay,
        package="ROOT",
        extra="root",
    ),
}
"""By name; the first with a suffix is the one that is written if no name is given."""
SUFFIXES: Final = tuple(dict.fromkeys(suffix for each in FORMATS.values() for suffix in each.suffixes))
SUFFIX_LIST: Final = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"


def find_format(path: StrPath, name: str | None = None) -> FileFormat:
    """Find the format to write a path in, and check that its package is installed.

    Parameters
    ----------
    path : str or path
    name : str or None
        Name of the format; None takes the first whose files have the path's suffix.

    Raises
    ------
    ArgumentValueError
        If there is no such format, or the path's suffix is not one of its own.
    MissingPackageError
        If the format needs a package that is not installed.
    """
    path = check_path("path", path)
    _check_suffix(path)
    if name is None:
        name = next(name for name, each in FORMATS.items() if path.suffix in each.suffixes)
    if name not in FORMATS:
        raise ArgumentValueError("format", f"format must be one of {', '.join(FORMATS)}, but is {name!r}.")
    found = FORMATS[name]
    if path.suffix not in found.suffixes:
        message = f"{path} must end in {' or '.join(found.suffixes)}, as files of the format {name} do."
        raise ArgumentValueError("path", message)
    _require_package(found)
    return found


def open_reader(path: Path) -> FormatReader:
    """Open the reader of the formats that the suffix of a path names; raises as `find_format`."""
    _check_suffix(path)
    found = next(each for each in FORMATS.values() if path.suffix in each.suffixes)
    _require_package(found)
    return found.reader(path)


def _check_suffix(path: Path) -> None:
    if path.suffix not in SUFFIXES:
        raise ArgumentValueError("path", f"{path} must end in {SUFFIX_LIST}, the formats of digit files.")


def _require_package(found: FileFormat) -> None:
    if found.package is not None and found.extra is not None:
        require(found.package, extra=found.extra, purpose=found.title)
