"""The three layouts of digits in Parquet: a row a digit, a row an event, and a compact one.

``parquet`` has a row a digit, with the columns of `Digits`.

``parquet-events`` has a row an event, those without digits too: ``event``, and the other columns as lists.

``parquet-compact`` has a row a digit. Instead of the two cells it has ``pixel_step``: the number of the pixel,
``768 * u_cell + v_cell``, less that of the digit before it on the same sensor of the same event (less 0 for the first
one). To read it with pandas::

    pixel = table.groupby(["event", "sensor_id"])["pixel_step"].cumsum()
    u_cell, v_cell = pixel // 768, pixel % 768

Small numbers whose bytes are stored one after the other (byte-stream split) compress well; readers of before 2024,
Spark 3.3 among them, do not know it for integers. And a row that is left out moves all pixels after it on its sensor,
so `ParquetReader` reads such a file with a digest alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.conversions import build_arrow_array
from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.sensors import N_V_CELLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["COMPACT", "EVENTS", "FLAT", "LIST_COLUMNS", "MARK", "STEP", "ParquetLayout", "find_layout"]

MARK: Final = b"pxdbg_digest\n"
"""Bytes that our writer puts between the rows and the footer; no other tool writes there. They say that the footer must
hold a digest. Parquet has no checksum of the footer, and a damaged byte in it can hide the metadata with the digest:
without this mark, such a file would pass as one of another tool."""
STEP: Final = "pixel_step"
"""Column of the compact layout, in place of the two cells."""
LIST_COLUMNS: Final = ("sensor_id", "u_cell", "v_cell", "charge")
"""Columns that are lists in the layout with a row an event."""
_COMPACT_DTYPES: Final = {
    "event": COLUMN_DTYPES["event"],
    "sensor_id": COLUMN_DTYPES["sensor_id"],
    STEP: np.dtype(np.uint32),
    "charge": COLUMN_DTYPES["charge"],
}


@dataclass(frozen=True, kw_only=True)
class ParquetLayout:
    """One layout.

    Attributes
    ----------
    dtypes : mapping of str to dtype
        Of the numbers in each column.
    build_columns : callable
        Converts numbers and digits of whole events to the columns.
    lists : tuple of str
        Columns that are lists: a row is an event, also one without digits. Without lists a row is a digit.
    options : mapping of str to object
        Options of pyarrow's writer.
    """

    dtypes: Mapping[str, np.dtype[Any]]
    build_columns: Callable[[Sequence[tuple[int, Digits]]], list[Any]]
    lists: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(self.dtypes)

    def build_schema(self, metadata: Mapping[str, str]) -> Any:  # noqa: ANN401
        """Build the schema, in which no value may be missing, with the metadata of the file."""
        import pyarrow as pa

        fields = []
        for name, dtype in self.dtypes.items():
            kind = pa.from_numpy_dtype(dtype)
            if name in self.lists:
                kind = pa.list_(pa.field("element", kind, nullable=False))
            fields.append(pa.field(name, kind, nullable=False))
        return pa.schema(fields, metadata=dict(metadata))


def find_layout(schema: Any) -> ParquetLayout:  # noqa: ANN401
    """Find the layout that the columns of a schema suggest; the reader checks them."""
    import pyarrow as pa

    types = dict(zip(schema.names, schema.types, strict=True))
    if STEP in types and not {"u_cell", "v_cell"} & types.keys():
        return COMPACT
    lists = [name for name in LIST_COLUMNS if name in types and is_list(types[name])]
    return EVENTS if lists and pa.types.is_integer(types.get("event", pa.null())) else FLAT


def is_list(kind: Any) -> bool:  # noqa: ANN401
    """Whether an Arrow type is one of lists of any length."""
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _build_flat_columns(events: Sequence[tuple[int, Digits]]) -> list[Any]:
    digits = Digits.concatenate(digits for _number, digits in events)
    return [build_arrow_array(getattr(digits, name)) for name in COLUMN_DTYPES]


def _build_event_columns(events: Sequence[tuple[int, Digits]]) -> list[Any]:
    import pyarrow as pa

    digits = Digits.concatenate(digits for _number, digits in events)
    offsets = np.cumsum([0, *(len(digits) for _number, digits in events)], dtype=np.int32)
    numbers = np.array([number for number, _digits in events], dtype=np.int64)
    types = EVENTS.build_schema({})
    lists = [
        pa.ListArray.from_arrays(
            build_arrow_array(offsets), build_arrow_array(getattr(digits, name)), type=types.field(name).type
        )
        for name in LIST_COLUMNS
    ]
    return [build_arrow_array(numbers), *lists]


def _build_compact_columns(events: Sequence[tuple[int, Digits]]) -> list[Any]:
    digits = Digits.concatenate(digits for _number, digits in events)
    pixel = digits.u_cell.astype(np.int64) * N_V_CELLS + digits.v_cell
    is_first = np.diff(digits.event, prepend=-1) != 0
    is_first |= np.diff(digits.sensor_id.astype(np.int64), prepend=-1) != 0
    step = np.where(is_first, pixel, np.diff(pixel, prepend=0))
    columns: list[NDArray[Any]] = [digits.event, digits.sensor_id, step.astype(_COMPACT_DTYPES[STEP]), digits.charge]
    return [build_arrow_array(column) for column in columns]


FLAT: Final = ParquetLayout(dtypes=COLUMN_DTYPES, build_columns=_build_flat_columns)
EVENTS: Final = ParquetLayout(dtypes=COLUMN_DTYPES, build_columns=_build_event_columns, lists=LIST_COLUMNS)
COMPACT: Final = ParquetLayout(
    dtypes=_COMPACT_DTYPES,
    build_columns=_build_compact_columns,
    options={
        "compression_level": 3,
        "use_dictionary": ["event", "sensor_id", "charge"],
        "column_encoding": {STEP: "BYTE_STREAM_SPLIT"},
    },
)
