"""Zero-suppressed digits: parallel arrays, one element for each hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from pxdbg_runtime.checks import check_event
from pxdbg_runtime.conversions import build_arrow_table, build_awkward_events, build_data_frame
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.sensors import (
    INDEX_BY_VXD_ID,
    MAX_CHARGE_ADU,
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    SensorLike,
    sensor_of,
    unpack_vxd_ids,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import awkward as ak
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["COLUMN_DTYPES", "DIGIT_DTYPE", "DigitTable", "Digits", "number_pixels", "order_rows"]

COLUMN_DTYPES: Final[dict[str, np.dtype[np.generic]]] = {
    "event": np.dtype(np.int64),
    "sensor_id": np.dtype(np.uint16),
    "u_cell": np.dtype(np.uint16),
    "v_cell": np.dtype(np.uint16),
    "charge": np.dtype(np.uint8),
}
"""Columns of `Digits` and of digit files, in order."""

DIGIT_DTYPE: Final = np.dtype(list(COLUMN_DTYPES.items()))
"""Structured dtype of `Digits.to_structured`."""
_CELL_BITS: Final = 16


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class DigitTable:
    """What `Digits` and `OverlaidDigits` have in common: all but the charge, of which each has its own type.

    A subclass names the types of its columns in `_dtypes`; its constructor raises the errors of `Digits`.
    """

    _dtypes: ClassVar[Mapping[str, np.dtype[np.generic]]]
    event: NDArray[np.int64]
    sensor_id: NDArray[np.uint16]
    u_cell: NDArray[np.uint16]
    v_cell: NDArray[np.uint16]

    def __post_init__(self) -> None:
        """Check the columns and make them read-only."""
        kind = type(self).__name__
        for name, dtype in self._dtypes.items():
            column = getattr(self, name)
            if not isinstance(column, np.ndarray) or column.dtype != dtype:
                came = column.dtype if isinstance(column, np.ndarray) else type(column).__name__
                raise ArgumentTypeError(name, f"{kind}: {name} must be an array of {dtype}, but is {came}.")
            if type(column) is not np.ndarray and hasattr(column, "mask"):  # numpy.ma takes time to import
                message = (
                    f"{kind}: {name} must be an array without a mask: select the values that count, or fill the others."
                )
                raise ArgumentTypeError(name, message)
            if column.shape != self.event.shape or column.ndim != 1:
                message = (
                    f"{kind}: all columns must be one-dimensional and of equal length, but {name} has the "
                    f"shape {column.shape} and event {self.event.shape}."
                )
                raise ArgumentValueError(name, message)
            # A view, so that the caller's own array keeps its flag.
            locked = column.view()
            locked.flags.writeable = False
            object.__setattr__(self, name, locked)

    def __setstate__(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        vars(self).update(state)
        self.__post_init__()  # arrays that pickle or deepcopy restore are writable

    def __len__(self) -> int:
        return len(self.event)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same digits in the same order."""
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in self._dtypes)

    __hash__ = None  # type: ignore[assignment]  # arrays are not hashable either

    def __repr__(self) -> str:
        n_events = len(np.unique(self.event))
        return f"{type(self).__name__}({len(self)} digits, {n_events} event{'s' if n_events != 1 else ''})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Digits(DigitTable):
    """Digits of one or more events, ordered by event, sensor, u cell, v cell.

    All arrays have the same length and are read-only, also after copying and unpickling.

    Attributes
    ----------
    event : ndarray of int64
        Event number.
    sensor_id : ndarray of uint16
        VxdID of the sensor.
    u_cell : ndarray of uint16
        0 to 249, along r-phi.
    v_cell : ndarray of uint16
        0 to 767, along z.
    charge : ndarray of uint8
        ADU, 1 to 255.

    Raises
    ------
    ArgumentTypeError
        If an array has another dtype, or is masked: masked values would become digits.
    ArgumentValueError
        If the arrays are not one-dimensional and of equal length.
    """

    _dtypes = COLUMN_DTYPES
    charge: NDArray[np.uint8]

    @classmethod
    def empty(cls) -> Digits:
        """Create `Digits` of no hits."""
        return cls(**{name: np.empty(0, dtype) for name, dtype in COLUMN_DTYPES.items()})

    @classmethod
    def concatenate(cls, parts: Iterable[Digits]) -> Digits:
        """Join digits, in the order given."""
        listed = list(parts)
        if not listed:
            return cls.empty()
        return cls(**{name: np.concatenate([getattr(p, name) for p in listed]) for name in COLUMN_DTYPES})

    def of_sensor(self, sensor: SensorLike) -> Digits:
        """Select the digits of one sensor.

        Parameters
        ----------
        sensor : Sensor, str or int
            The sensor, its name, such as "1.1.1", or its VxdID.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If there is no such sensor.
        """
        return self.select_rows(self.sensor_id == sensor_of(sensor).vxd_id)

    def of_event(self, event: int) -> Digits:
        """Select the digits of one event, which may have none.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If `event` is not an integer in [0, 2^63 - 1].
        """
        return self.select_rows(self.event == check_event(event))

    def select_rows(self, rows: slice | NDArray[np.generic]) -> Digits:
        """Select rows by a slice (views of the same memory), or by a mask or indices (copies)."""
        return Digits(**{name: getattr(self, name)[rows] for name in COLUMN_DTYPES})

    def to_images(self) -> NDArray[np.uint8]:
        """Build the images of the charges of one event.

        Returns
        -------
        ndarray of uint8, shape (40, 250, 768)
            ADU; 0 where there is no hit.

        Raises
        ------
        ArgumentValueError
            If the digits belong to several events, or if a digit lies outside the PXD, has no charge or is repeated.
        """
        events = np.unique(self.event)
        if len(events) > 1:
            message = (
                f"to_images() builds the images of one event, but these digits belong to {len(events)}: "
                "select one with of_event() first."
            )
            raise ArgumentValueError("event", message)
        index = INDEX_BY_VXD_ID[self.sensor_id]
        if np.any(index == N_SENSORS):
            message = f"No PXD sensor has the VxdID {self.sensor_id[index == N_SENSORS][0]} of a digit."
            raise ArgumentValueError("sensor_id", message)
        for name, n_cells in (("u_cell", N_U_CELLS), ("v_cell", N_V_CELLS)):
            cell = getattr(self, name)
            if len(cell) and cell.max() >= n_cells:
                message = f"{name} must lie between 0 and {n_cells - 1}, but a digit has {cell.max()}."
                raise ArgumentValueError(name, message)
        if not self.charge.all():
            message = f"charge must lie between 1 and {MAX_CHARGE_ADU} ADU, but a digit has 0."
            raise ArgumentValueError("charge", message)
        images = np.zeros((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
        images[index, self.u_cell, self.v_cell] = self.charge
        n_repeated = len(self) - np.count_nonzero(images)
        if n_repeated:
            message = f"Each pixel of an event has at most one digit, but {n_repeated} are repeated."
            raise ArgumentValueError("u_cell", message)
        return images

    def to_structured(self) -> NDArray[np.void]:
        """Build one structured array with the columns as fields.

        Returns
        -------
        ndarray, dtype `DIGIT_DTYPE`
        """
        table = np.empty(len(self), dtype=DIGIT_DTYPE)
        for name in COLUMN_DTYPES:
            table[name] = getattr(self, name)
        return table

    def to_awkward(
        self, *, event_numbers: Sequence[int] | NDArray[np.int64] | None = None, geometry: bool = False
    ) -> ak.Array:
        """Build an awkward array of one record for each event.

        Parameters
        ----------
        event_numbers : sequence of int or None
            Numbers of the events, ascending, those without digits too; `pxdbg_runtime.open(path).event_numbers` are
            those of a file. None takes the events that have digits.
        geometry : bool
            Add the fields `layer`, `ladder` and `sensor`, uint8.

        Returns
        -------
        awkward.Array
            Records of `event`, int64, and of lists `sensor_id`, `u_cell`, `v_cell` and `charge`, in the types of the
            columns; none can be None. The memory is shared.

        Raises
        ------
        ArgumentTypeError, ArgumentValueError
            If `event_numbers` are not integers, do not ascend or lack an event that has digits.
        MissingPackageError
            If awkward is not installed.
        """
        columns = self._list_columns(geometry=geometry)
        return build_awkward_events(columns.pop("event"), columns, event_numbers)

    def to_arrow(self, *, geometry: bool = False) -> pa.Table:
        """Build an Arrow table of the columns, which are not nullable.

        Parameters
        ----------
        geometry : bool
            Add the columns `layer`, `ladder` and `sensor`, uint8.

        Raises
        ------
        MissingPackageError
            If pyarrow is not installed.
        """
        return build_arrow_table(self._list_columns(geometry=geometry))

    def to_pandas(self, *, geometry: bool = False) -> pd.DataFrame:
        """Build a data frame of copies of the columns.

        Parameters
        ----------
        geometry : bool
            Add the columns `layer`, `ladder` and `sensor`, uint8.

        Raises
        ------
        MissingPackageError
            If pandas is not installed.
        """
        return build_data_frame(self._list_columns(geometry=geometry))

    def _list_columns(self, *, geometry: bool) -> dict[str, NDArray[Any]]:
        columns = {name: getattr(self, name) for name in COLUMN_DTYPES}
        return {**columns, **unpack_vxd_ids(self.sensor_id)} if geometry else columns


def number_pixels(digits: DigitTable) -> NDArray[np.int64]:
    """Compute a number of each pixel that grows with sensor, u cell, v cell, whatever 16-bit values they have."""
    pixel = digits.sensor_id.astype(np.int64) << _CELL_BITS
    pixel |= digits.u_cell
    pixel <<= _CELL_BITS
    pixel |= digits.v_cell
    return pixel


def order_rows(digits: DigitTable) -> NDArray[np.int64]:
    """Order the indices of the rows by event, sensor, u cell, v cell; rows of one pixel keep their order."""
    return np.lexsort((number_pixels(digits), digits.event))
