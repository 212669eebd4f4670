"""Files of digits: a flat table with the columns of `Digits`, and how it was made, as Parquet or NPZ."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from pxdbg_runtime.atomic_file import open_partial
from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError, JsonFieldError
from pxdbg_runtime.optional import require
from pxdbg_runtime.provenance import HowMade, how_made
from pxdbg_runtime.reporting_writer import ReportingWriter
from pxdbg_runtime.sensors import N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "SUFFIXES",
    "DigitFile",
    "DigitWriter",
    "EventReader",
    "HowMade",
    "check_suffix",
    "event_reader",
    "how_made",
    "opened_for_writing",
    "read_digits",
]

SUFFIXES: Final = (".parquet", ".npz")
_METADATA_KEY: Final = "pxdbg"
# pyarrow: ValueError, KeyError, NotImplementedError, TypeError, MemoryError; an array's header in an NPZ is a Python
# expression, which NumPy reads with tokenize and ast; zipfile raises RuntimeError for what is encrypted.
_DAMAGED: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # NotImplementedError and RecursionError among them
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, zipfile and pyarrow raise where the bytes are not what they should be."""


@dataclass(frozen=True, kw_only=True)
class DigitFile:
    """What a file of digits holds."""

    digits: Digits
    how_made: HowMade


class DigitWriter(Protocol):
    """Takes the digits of one event after the other."""

    def write(self, digits: Digits) -> None:
        """Append digits."""


def check_suffix(path: Path) -> None:
    """Check that a path names a format that can be written here.

    Raises
    ------
    ArgumentValueError
        If it ends neither in .parquet nor in .npz.
    MissingPackageError
        If it is Parquet and pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        message = f"{path} must end in {' or '.join(SUFFIXES)}, which says how digits are written."
        raise ArgumentValueError("output", message)
    if path.suffix == ".parquet":
        require("pyarrow", extra="parquet", purpose="Parquet")


@contextlib.contextmanager
def opened_for_writing(path: Path, how: HowMade) -> Iterator[DigitWriter]:
    """Open a file of digits; it appears, whole, when the block ends well.

    Parquet goes to disk event by event; NPZ is kept in memory until the end, about 1 MB an event.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `check_suffix`.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    check_suffix(path)
    opened = _parquet_writer if path.suffix == ".parquet" else _npz_writer
    with open_partial(path) as partial, ReportingWriter(path, opened(partial, how)) as writer:
        yield writer


class _ParquetWriter:
    def __init__(self, partial: Path, how: HowMade) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._fields = pa.schema(
            [(name, pa.from_numpy_dtype(dtype)) for name, dtype in COLUMN_DTYPES.items()],
            metadata={_METADATA_KEY: how.to_json()},
        )
        self._table_of = pa.Table.from_arrays
        self._sink = partial.open("wb")  # pyarrow takes no path that is not UTF-8
        self._file = pyarrow.parquet.ParquetWriter(
            self._sink, self._fields, compression="zstd", write_page_checksum=True
        )

    def write(self, digits: Digits) -> None:
        columns = [getattr(digits, name) for name in COLUMN_DTYPES]
        self._file.write_table(self._table_of(columns, schema=self._fields))

    def close(self) -> None:
        with self._sink:
            self._file.close()


@contextlib.contextmanager
def _parquet_writer(partial: Path, how: HowMade) -> Iterator[DigitWriter]:
    with contextlib.closing(_ParquetWriter(partial, how)) as writer:
        yield writer


class _NpzWriter:
    def __init__(self) -> None:
        self.parts: list[Digits] = []

    def write(self, digits: Digits) -> None:
        self.parts.append(digits)


@contextlib.contextmanager
def _npz_writer(partial: Path, how: HowMade) -> Iterator[DigitWriter]:
    writer = _NpzWriter()
    yield writer
    digits = Digits.concatenate(writer.parts)
    arrays = {name: getattr(digits, name) for name in COLUMN_DTYPES}
    arrays[_METADATA_KEY] = np.array(how.to_json())
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_digits(path: Path) -> DigitFile:
    """Read a file of digits.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `check_suffix`.
    DigitFileError
        If the file cannot be read, was not written by pxdbg-runtime, or holds what is no digit.
    """
    check_suffix(path)
    with _damage_reported(path), path.open("rb"):
        text, columns = _read_parquet(path) if path.suffix == ".parquet" else _read_npz(path)
    how = _parsed_how_made(path, text)
    return DigitFile(digits=_checked(path, columns, how), how_made=how)


@dataclass(frozen=True, kw_only=True)
class EventReader:
    """Gives the digits of a file event by event, so that a long file need not fit in memory.

    Each event that the file tells of comes once, in order, those without digits too. An NPZ is read whole at the first.

    Attributes
    ----------
    path : Path
    how_made : HowMade
    """

    path: Path
    how_made: HowMade

    def __iter__(self) -> Iterator[Digits]:
        """Read the file from its beginning.

        Raises
        ------
        DigitFileError
            As `read_digits`, or if the digits are not ordered by event.
        """
        pending = Digits.empty()
        event = self.how_made.first_event
        for part in _parts(self.path, self.how_made):
            digits = Digits.concatenate([pending, part]) if len(pending) else part
            if np.any(np.diff(digits.event) < 0) or (len(digits) and digits.event[0] < event):
                message = f"{self.path} holds digits that are not ordered by event: generate it again."
                raise DigitFileError(self.path, message)
            # The last event of a part may go on in the next one.
            while len(digits) and event < digits.event[-1]:
                n_digits = int(np.searchsorted(digits.event, event, side="right"))
                yield _rows(digits, 0, n_digits)
                digits = _rows(digits, n_digits, len(digits))
                event += 1
            pending = digits
        yield pending
        for _event in range(event + 1, self.how_made.first_event + self.how_made.events):
            yield Digits.empty()


def event_reader(path: Path) -> EventReader:
    """Open a file of digits to read it event by event.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `read_digits`; what is wrong with the digits themselves comes up when they are read.
    """
    check_suffix(path)
    with _damage_reported(path), path.open("rb"):
        text = _parquet_text(path) if path.suffix == ".parquet" else _read_npz(path)[0]
    return EventReader(path=path, how_made=_parsed_how_made(path, text))


def _parts(path: Path, how: HowMade) -> Iterator[Digits]:
    """Read a file part by part: the row groups of a Parquet file, all of an NPZ."""
    if path.suffix == ".npz":
        yield read_digits(path).digits
        return
    import pyarrow.parquet

    with _damage_reported(path), path.open("rb"):
        file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    with contextlib.closing(file):
        for group in range(file.num_row_groups):
            with _damage_reported(path):
                table = file.read_row_group(group)
                columns = {name: table.column(name).to_numpy() for name in COLUMN_DTYPES}
            yield _checked(path, columns, how)


@contextlib.contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or _one_line(error)}."
        raise DigitFileError(path, message) from None
    except _DAMAGED as error:
        message = (
            f"{path} is not a file of digits written by pxdbg-runtime, or is damaged ({_one_line(error)}): "
            "generate it again."
        )
        raise DigitFileError(path, message) from None


def _parsed_how_made(path: Path, text: str) -> HowMade:
    try:
        return HowMade.from_json(text)
    except JsonFieldError as error:
        message = f"{path} does not say how its digits were made: {error}"
        raise DigitFileError(path, message) from None


def _parquet_text(path: Path) -> str:
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(path).metadata or {}
    return str(metadata[_METADATA_KEY.encode()].decode())


def _read_parquet(path: Path) -> tuple[str, dict[str, NDArray[np.generic]]]:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    metadata = table.schema.metadata or {}
    text = metadata[_METADATA_KEY.encode()].decode()
    return text, {name: table.column(name).to_numpy() for name in COLUMN_DTYPES}


def _read_npz(path: Path) -> tuple[str, dict[str, NDArray[np.generic]]]:
    # Opened here, because NumPy leaves a file open in which it finds no sound archive.
    with path.open("rb") as file:
        content = np.load(file, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            message = "it is a single array"
            raise ValueError(message)  # noqa: TRY004  # joins the other ways in which a file is not ours
        with content:
            return str(content[_METADATA_KEY]), {name: content[name] for name in COLUMN_DTYPES}


def _checked(path: Path, columns: dict[str, NDArray[np.generic]], how: HowMade) -> Digits:
    """Make `Digits` of columns that come from outside."""
    try:
        digits = Digits(**columns)  # type: ignore[arg-type]  # the constructor checks the dtypes
    except (TypeError, ValueError) as error:
        message = f"{path} does not hold the columns of Digits: {error}"
        raise DigitFileError(path, message) from None
    last_event = how.first_event + how.events - 1
    limits = {
        "event": (how.first_event, last_event),
        "u_cell": (0, N_U_CELLS - 1),
        "v_cell": (0, N_V_CELLS - 1),
        "charge": (1, 255),
    }
    for name, (low, high) in limits.items():
        column = getattr(digits, name)
        if len(column) and not (low <= column.min() and column.max() <= high):
            message = f"{path} holds {name} from {column.min()} to {column.max()}, expected {low} to {high}: generate it again."
            raise DigitFileError(path, message)
    if not np.isin(digits.sensor_id, [sensor.vxd_id for sensor in SENSORS]).all():
        message = f"{path} holds VxdIDs of sensors that the PXD does not have: generate it again."
        raise DigitFileError(path, message)
    return digits


def _rows(digits: Digits, start: int, stop: int) -> Digits:
    return Digits(**{name: getattr(digits, name)[start:stop] for name in COLUMN_DTYPES})


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
