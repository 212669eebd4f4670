"""The columns of each layout of Parquet as the flat columns of `Digits`: integers, none of them missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.formats.interface import BLOCK_ROWS, Columns, ContentError
from pxdbg_runtime.formats.parquet_layouts import COMPACT, EVENTS, LIST_COLUMNS, STEP, ParquetLayout, is_list
from pxdbg_runtime.formats.whole_events import EntryChecker
from pxdbg_runtime.sensors import N_SENSORS, N_V_CELLS, PIXELS_PER_SENSOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.withheld_columns import WithheldColumns

__all__ = ["check_schema", "read_event_rows", "read_rows", "read_steps"]

_MAX_EVENT_DIGITS: Final = N_SENSORS * PIXELS_PER_SENSOR
_MAX_DIGITS_PER_BYTE: Final = 20
"""Digits of an event are decompressed at once; a row group of many claims no more of them than this for each byte of a
column. Ours have one."""
_OTHER_LENGTHS: Final = "does not hold the columns of Digits: the lists of an event must have one length, but differ"


def check_schema(schema: Any, layout: ParquetLayout) -> None:  # noqa: ANN401
    """Check that each column of a layout exists once and holds integers, or lists of integers."""
    import pyarrow as pa

    for name in layout.columns:
        indices = schema.get_all_field_indices(name)
        if len(indices) != 1:
            message = f"it has {len(indices) or 'no'} columns {name}, expected one"
            raise ValueError(message)
        whole = kind = schema.field(indices[0]).type
        expected = "integers"
        if name in layout.lists:
            expected = "lists of integers"
            kind = kind.value_type if is_list(kind) else pa.null()
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not pa.types.is_integer(kind):
            found = kind if expected == "integers" else whole
            message = f"does not hold the columns of Digits: {name} must hold {expected}, but holds {found}"
            raise ContentError(message)


def read_rows(file: Any, layout: ParquetLayout) -> Iterator[Columns]:  # noqa: ANN401
    """Read a row a digit, `BLOCK_ROWS` at a time; of a row group, only the compressed bytes are in memory at once."""
    for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=list(layout.columns), use_threads=False):
        yield {name: _read_integers(name, batch.column(name)) for name in layout.columns}


def read_steps(file: Any) -> Iterator[Columns]:  # noqa: ANN401
    """Read the compact layout as `read_rows`, with the cells computed from the steps."""
    event, sensor, pixel = -1, -1, 0
    for block in read_rows(file, COMPACT):
        events, sensors, steps = (block[name].astype(np.int64) for name in ("event", "sensor_id", STEP))
        if len(steps) and not 0 <= steps.min() <= steps.max() < PIXELS_PER_SENSOR:
            message = (
                f"does not hold the columns of Digits: {STEP} from {steps.min()} to {steps.max()}, "
                f"expected 0 to {PIXELS_PER_SENSOR - 1}"
            )
            raise ContentError(message)
        is_first = (np.diff(events, prepend=event) != 0) | (np.diff(sensors, prepend=sensor) != 0)
        total = pixel + np.cumsum(steps)
        # What all sensors before it add up to; nothing for the sensor that the block before began.
        before = np.maximum.accumulate(np.where(is_first, total - steps, 0))
        pixels = total - before
        if len(pixels):
            event, sensor, pixel = int(events[-1]), int(sensors[-1]), int(pixels[-1])
        columns = {name: block[name] for name in ("event", "sensor_id", "charge")}
        yield {**columns, "u_cell": pixels // N_V_CELLS, "v_cell": pixels % N_V_CELLS}


def read_event_rows(file: Any, content: WithheldColumns) -> Iterator[Columns]:  # noqa: ANN401
    """Read a row an event, as many rows at a time as have some `BLOCK_ROWS` digits.

    Raises
    ------
    ContentError
        If the rows of a row group claim more digits than an event or the file's bytes can have, an event or one of its
        values is missing, its lists differ in length, or it comes twice.
    """
    checker = EntryChecker()
    for group in range(file.metadata.num_row_groups):
        n_rows = file.metadata.row_group(group).num_rows
        content.check_footer(file, group, EVENTS.columns)
        n_digits = _check_claim(file, group)
        size = max(1, BLOCK_ROWS * n_rows // max(n_digits, 1))
        options = {"row_groups": [group], "columns": list(EVENTS.columns), "use_threads": False}
        for batch in file.iter_batches(batch_size=min(size, BLOCK_ROWS), **options):
            numbers = _read_integers("event", batch.column("event"))
            checker.add(numbers)
            columns = _flatten_lists(numbers, batch)
            for start in range(0, len(columns["event"]), BLOCK_ROWS):
                yield {name: column[start : start + BLOCK_ROWS] for name, column in columns.items()}
    checker.finish()


def _check_claim(file: Any, number: int) -> int:  # noqa: ANN401
    """Return the number of digits that a row group claims; an empty list counts as one."""
    group = file.metadata.row_group(number)
    names = [file.schema.column(index).path.split(".")[0] for index in range(group.num_columns)]
    claims = {name: group.column(names.index(name)) for name in LIST_COLUMNS}
    n_digits: int = claims["v_cell"].num_values
    n_bytes: int = claims["v_cell"].total_compressed_size
    if any(claims[name].num_values != n_digits for name in LIST_COLUMNS):
        raise ContentError(_OTHER_LENGTHS)
    most = min(_MAX_EVENT_DIGITS * group.num_rows, max(_MAX_EVENT_DIGITS, _MAX_DIGITS_PER_BYTE * n_bytes))
    if n_digits > most:
        message = (
            f"claims {n_digits:,} digits in a row group of {group.num_rows:,} events and {n_bytes:,} bytes of v_cell, "
            f"expected at most {most:,}: generate it again"
        )
        raise ContentError(message)
    return n_digits


def _flatten_lists(numbers: NDArray[np.generic], batch: Any) -> Columns:  # noqa: ANN401
    lists = {name: batch.column(name) for name in LIST_COLUMNS}
    for name, column in lists.items():
        _check_complete(name, column)
    lengths, *others = (np.diff(_view_integers(column.offsets)) for column in lists.values())
    if not all(np.array_equal(lengths, other) for other in others):
        raise ContentError(_OTHER_LENGTHS)
    events = np.repeat(numbers, lengths)
    return {"event": events, **{name: _read_integers(name, column.flatten()) for name, column in lists.items()}}


def _read_integers(name: str, column: Any) -> NDArray[np.generic]:  # noqa: ANN401
    import pyarrow as pa

    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    _check_complete(name, column)
    return _view_integers(column)


def _view_integers(column: Any) -> NDArray[np.generic]:  # noqa: ANN401
    """View an Arrow array of integers, none of them null; its own `to_numpy` would import pandas, in half a second."""
    dtype = np.dtype(str(column.type))
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def _check_complete(name: str, column: Any) -> None:  # noqa: ANN401
    if column.null_count:
        message = f"does not hold the columns of Digits: {name} has {column.null_count} empty values"
        raise ContentError(message)
