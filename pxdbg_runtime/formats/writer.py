"""Write digit files, event by event, in bounded memory."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pxdbg_runtime.checks import check_path
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, JsonFieldError
from pxdbg_runtime.formats.atomic_write import open_partial, report_file_errors
from pxdbg_runtime.formats.interface import MAX_METADATA_BYTES, DigitWriter
from pxdbg_runtime.formats.metadata import FileMetadata
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS, Provenance
from pxdbg_runtime.formats.registry import find_format
from pxdbg_runtime.formats.row_checks import RowChecker, RowError, convert_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.digits import Digits

__all__ = ["DigitWriter", "open_checked_writer", "open_writer"]


class _CheckedWriter:
    """Checks digits before they are written, and names the file in the errors of its own operations alone.

    Parameters
    ----------
    path : Path
        What the errors name.
    metadata : FileMetadata
        What the digits must agree with.
    opened : context manager
        The writer of the format; it completes the file when the block ends without an error.
    """

    def __init__(self, path: Path, metadata: FileMetadata, opened: AbstractContextManager[DigitWriter]) -> None:
        self._path = path
        self._opened = opened
        self._checker = RowChecker(metadata)

    def __enter__(self) -> DigitWriter:
        with report_file_errors(self._path):
            self._writer = self._opened.__enter__()
        return self

    def write(self, digits: Digits) -> None:
        """Append digits."""
        try:
            self._checker.check(convert_columns({name: getattr(digits, name) for name in COLUMN_DTYPES}))
        except RowError as error:
            raise ArgumentValueError("digits", f"{self._path} was given {error}.") from None
        with report_file_errors(self._path):
            self._writer.write(digits)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # If the block failed, its error counts, and not that the file cannot be closed either.
        with contextlib.suppress(*(() if kind is None else (Exception,))), report_file_errors(self._path):
            self._opened.__exit__(kind, error, traceback)


@contextlib.contextmanager
def open_writer(
    path: StrPath, provenance: Provenance | FileMetadata, *, format_name: str | None = None
) -> Iterator[DigitWriter]:
    """Open a digit file to write; the complete file appears when the block ends without an error.

    The memory does not grow with the number of events: tables are written in groups of whole events, and the columns
    of an NPZ wait in temporary files beside it.

    Parameters
    ----------
    path : str or path
    provenance : Provenance or FileMetadata
        How the digits were generated: one job, or those of the files that are merged.
    format_name : str or None
        Name of one of `FORMATS`; None takes the first that writes the path's suffix.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `find_format`; also if the file would hold more than a million events or too many jobs, or if a field of the
        provenance is invalid.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    path = check_path("path", path)
    file_format = find_format(path, format_name)
    if isinstance(provenance, Provenance) and provenance.events > MAX_FILE_EVENTS:
        message = (
            f"{path} would hold {provenance.events:,} events, expected at most {MAX_FILE_EVENTS:,}: split them over "
            "several files, which are read as one sample."
        )
        raise ArgumentValueError("events", message)
    metadata = provenance if isinstance(provenance, FileMetadata) else FileMetadata(jobs=(provenance,))
    with open_checked_writer(path, metadata, file_format.open_writer) as writer:
        yield writer


@contextlib.contextmanager
def open_checked_writer(
    path: Path,
    metadata: FileMetadata,
    open_unchecked: Callable[[Path, FileMetadata], AbstractContextManager[DigitWriter]],
) -> Iterator[DigitWriter]:
    """Write a file beside its path and check its digits; it appears when the block ends without an error.

    Parameters
    ----------
    path : Path
    metadata : FileMetadata
        What the digits must agree with.
    open_unchecked : callable
        As `FileFormat.open_writer`.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the metadata could not be read again: a field is invalid, or they are too long, those of some two thousand
        jobs.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    unknown = f"{path} would not say how its digits were generated"
    try:
        text = metadata.to_json()
    except TypeError as error:
        raise ArgumentTypeError("provenance", f"{unknown}: {error}.") from None
    size = len(text.encode())
    if size > MAX_METADATA_BYTES:
        message = (
            f"{path} would have metadata of {size:,} bytes for {len(metadata.jobs):,} jobs, expected at most "
            f"{MAX_METADATA_BYTES:,}: merge fewer files, and read the merged files as one sample."
        )
        raise ArgumentValueError("jobs", message)
    try:
        FileMetadata.from_json(text)
    except JsonFieldError as error:
        raise ArgumentValueError("provenance", f"{unknown}: {error}") from None
    with open_partial(path) as partial, _CheckedWriter(path, metadata, open_unchecked(partial, metadata)) as writer:
        yield writer
