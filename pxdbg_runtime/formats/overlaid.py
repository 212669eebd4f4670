"""Files of overlaid digits: flat Parquet whose charges may have 16 bits, beside what is known of signal and background.

They are no files of a generator, so they have neither `Provenance` nor a digest. If the overlay saturated at 255 ADU or
below, they are read as digit files of another tool.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.conversions import build_arrow_array
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import open_partial, report_file_errors
from pxdbg_runtime.formats.parquet_sink import ParquetSink
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.overlaying import OVERLAID_DTYPES, OverlaidDigits
from pxdbg_runtime.sensors import MAX_CHARGE_ADU
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pxdbg_runtime.formats.reader import EventReader

__all__ = ["OVERLAY_KEY", "OverlayRecord", "check_overlaid_path", "open_overlaid_writer"]

OVERLAY_KEY: Final = "pxdbg_overlay"
"""Name of the text that describes signal and background."""
_GROUP_ROWS: Final = 1_000_000
"""Rows of a row group, 16 MB; a row group ends with an event."""


@dataclass(frozen=True, kw_only=True)
class OverlayRecord:
    """What a file of overlaid digits records.

    Attributes
    ----------
    signal, background : EventReader
        The files; their names and metadata are recorded.
    n_events : int
        Number of events, those without digits included.
    saturate : int or None
        As of `overlay`.
    reuses_background : bool
        Whether background events were taken in turn, whatever their numbers.
    """

    signal: EventReader
    background: EventReader
    n_events: int
    saturate: int | None
    reuses_background: bool

    def to_json(self) -> str:
        """Write it as JSON; an input's metadata are null if they are unknown."""
        return json.dumps(
            {
                "schema": 1,
                "version": __version__,
                "events": self.n_events,
                "saturate": self.saturate,
                "reuses_background": self.reuses_background,
                "signal": _describe_input(self.signal),
                "background": _describe_input(self.background),
            }
        )


def _describe_input(reader: EventReader) -> dict[str, object]:
    metadata = None if reader.metadata is None else json.loads(reader.metadata.to_json())
    # Names of files need not be UTF-8.
    name = reader.path.name.encode(errors="backslashreplace").decode()
    return {"file": name, "is_checked": reader.is_checked, "metadata": metadata}


def check_overlaid_path(path: Path) -> None:
    """Check that a file of overlaid digits can have this name, and that pyarrow is installed.

    Raises
    ------
    ArgumentValueError
        If it does not end in .parquet.
    MissingPackageError
        If pyarrow is not installed.
    """
    if path.suffix != ".parquet":
        raise ArgumentValueError("path", f"{path} must end in .parquet, the format of overlaid digits.")
    require("pyarrow", extra="parquet", purpose="Parquet")


@contextlib.contextmanager
def open_overlaid_writer(path: Path, record: OverlayRecord) -> Iterator[Callable[[OverlaidDigits], None]]:
    """Open a file of overlaid digits to write; the complete file appears when the block ends without an error.

    Charges are stored with 8 bits if the overlay saturated at 255 ADU or below, else with 16.

    Yields
    ------
    callable
        Call it with the digits of each event, in order.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `check_overlaid_path`.
    OutputError
        If the file cannot be written; nothing is left behind then.
    """
    check_overlaid_path(path)
    import pyarrow as pa
    import pyarrow.parquet

    fits_digits = record.saturate is not None and record.saturate <= MAX_CHARGE_ADU
    dtypes = {**OVERLAID_DTYPES, "charge": np.dtype(np.uint8)} if fits_digits else OVERLAID_DTYPES
    schema = pa.schema(
        [pa.field(name, pa.from_numpy_dtype(dtype), nullable=False) for name, dtype in dtypes.items()],
        metadata={OVERLAY_KEY: record.to_json()},
    )
    waiting: list[OverlaidDigits] = []
    n_waiting = 0

    def write_group() -> None:
        nonlocal n_waiting
        # Spark 3.3 refuses a row group of no rows.
        if n_waiting:
            columns = [
                build_arrow_array(np.concatenate([getattr(digits, name) for digits in waiting]).astype(dtype))
                for name, dtype in dtypes.items()
            ]
            table = pa.Table.from_arrays(columns, schema=schema)
            with report_file_errors(path):
                file.write_table(table, row_group_size=len(table))  # or pyarrow begins another within an event
        waiting.clear()
        n_waiting = 0

    def write(digits: OverlaidDigits) -> None:
        nonlocal n_waiting
        if len(digits):
            waiting.append(digits)
            n_waiting += len(digits)
        if n_waiting >= _GROUP_ROWS:
            write_group()

    with open_partial(path) as partial, _open_sink(path, partial) as target:
        file = pyarrow.parquet.ParquetWriter(target, schema, compression="zstd", write_page_checksum=True)
        yield write
        write_group()
        with report_file_errors(path):
            file.close()


@contextlib.contextmanager
def _open_sink(path: Path, partial: Path) -> Iterator[ParquetSink]:
    """Open the sink at `partial`, whose closing writes what is buffered; errors name `path`."""
    with report_file_errors(path):
        sink = ParquetSink(partial)
    try:
        yield sink
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is raised
            sink.close()
        raise
    with report_file_errors(path):
        sink.close()
