"""Tables of other libraries, built from columns: awkward arrays, Arrow tables and pandas data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pxdbg_runtime.checks import MAX_EVENT
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import awkward as ak
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["build_arrow_array", "build_arrow_table", "build_awkward_events", "build_data_frame"]


def build_arrow_table(columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Build an Arrow table whose fields are not nullable.

    Parameters
    ----------
    columns : mapping of str to ndarray, shape (rows,)

    Raises
    ------
    MissingPackageError
        If pyarrow is not installed.
    """
    pyarrow = require("pyarrow", extra="parquet", purpose="An Arrow table")
    schema = pyarrow.schema(
        [
            pyarrow.field(name, pyarrow.from_numpy_dtype(column.dtype), nullable=False)
            for name, column in columns.items()
        ]
    )
    return pyarrow.Table.from_arrays([build_arrow_array(column) for column in columns.values()], schema=schema)


def build_arrow_array(column: NDArray[Any]) -> pa.Array:
    """Build an Arrow array that shares the memory of a column of numbers; raises as `build_arrow_table`.

    `pyarrow.array` imports pandas, if it is installed, to find out whether it was given one of its types: 50 MB.
    """
    pyarrow = require("pyarrow", extra="parquet", purpose="An Arrow array")
    values = np.ascontiguousarray(column)
    kind = pyarrow.from_numpy_dtype(values.dtype)
    return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(values)])


def build_data_frame(columns: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """Build a data frame of copies of columns; raises `MissingPackageError` if pandas is not installed."""
    pandas = require("pandas", extra="pandas", purpose="A data frame")
    return pandas.DataFrame(dict(columns), copy=True)


def build_awkward_events(
    event: NDArray[np.int64],
    columns: Mapping[str, NDArray[Any]],
    event_numbers: Sequence[int] | NDArray[np.integer[Any]] | None,
) -> ak.Array:
    """Build an awkward array of one record for each event.

    Parameters
    ----------
    event : ndarray of int64, shape (rows,)
        Event number of each row.
    columns : mapping of str to ndarray, shape (rows,)
        Each becomes a field of lists; the memory is shared.
    event_numbers : sequence of int or None
        Numbers of the records, ascending. None takes those of `event`: consecutive rows of one number are one record.

    Returns
    -------
    awkward.Array
        Records of `event`, int64, and of a list for each column.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `event_numbers` are not integers, do not ascend or lack an event; if they are given, also if the rows are
        not ordered by event.
    MissingPackageError
        If awkward is not installed.
    """
    awkward = require("awkward", extra="uproot", purpose="An awkward array")
    starts = np.flatnonzero(np.concatenate([[True], event[1:] != event[:-1]])[: len(event)])
    numbers, counts = event[starts], np.diff(starts, append=len(event))
    if event_numbers is not None:
        numbers, counts = _fill_events(numbers, counts, event_numbers)
    offsets = awkward.index.Index64(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    lists = [
        awkward.contents.ListOffsetArray(offsets, awkward.contents.NumpyArray(column)) for column in columns.values()
    ]
    contents = [awkward.contents.NumpyArray(numbers), *lists]
    return awkward.Array(awkward.contents.RecordArray(contents, ["event", *columns], length=len(numbers)))


def _fill_events(
    found: NDArray[np.int64], counts: NDArray[np.int64], event_numbers: Sequence[int] | NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all event numbers and the count of each, 0 for those that were not found."""
    if np.ma.isMaskedArray(event_numbers):
        message = "event_numbers must be an array without a mask: select the values that count, or fill the others."
        raise ArgumentTypeError("event_numbers", message)
    try:
        given = np.asarray(event_numbers)
    except ValueError:
        given = np.asarray(event_numbers, object)  # lists of different lengths
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        message = (
            f"event_numbers must be a sequence of integers, but is an array of {given.dtype} and shape {given.shape}."
        )
        raise ArgumentTypeError("event_numbers", message)
    outside = given[(given < 0) | (given > MAX_EVENT)]
    if len(outside):
        message = f"event_numbers must lie in [0, 2^63 - 1], but one is {outside[0]}."
        raise ArgumentValueError("event_numbers", message)
    numbers = given.astype(np.int64)
    for name, each in (("event_numbers", numbers), ("The digits", found)):
        if np.any(each[1:] <= each[:-1]):
            verb = "must ascend" if name == "event_numbers" else "must be ordered by event"
            message = f"{name} {verb}, but {each[1:][each[1:] <= each[:-1]][0]} does not come in order."
            raise ArgumentValueError("event_numbers", message)
    missing = np.setdiff1d(found, numbers, assume_unique=True)
    if len(missing):
        message = f"event_numbers must hold all events with digits, but lack {missing[0]}."
        raise ArgumentValueError("event_numbers", message)
    all_counts = np.zeros(len(numbers), dtype=np.int64)
    all_counts[np.searchsorted(numbers, found)] = counts
    return numbers, all_counts
