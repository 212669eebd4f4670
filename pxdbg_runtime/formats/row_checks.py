"""Checks of rows: each is a digit of the PXD, and the pixels of an event come once and in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.checks import MAX_EVENT
from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.formats.interface import Columns
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["RowChecker", "RowError", "convert_columns", "sort_rows"]

_LIMITS: Final = {
    "event": (0, MAX_EVENT),
    "u_cell": (0, N_U_CELLS - 1),
    "v_cell": (0, N_V_CELLS - 1),
    "charge": (1, MAX_CHARGE_ADU),
}
_IS_SENSOR: Final = np.zeros(1 << 16, dtype=bool)
_IS_SENSOR[[sensor.vxd_id for sensor in SENSORS]] = True
_U_BITS: Final = 10
_SENSOR_BITS: Final = 18


class RowError(Exception):
    """Rows are invalid; the message completes the sentence "a.parquet holds"."""

    def __init__(self, message: str, *, is_duplicate: bool = False) -> None:
        super().__init__(message)
        self.is_duplicate = is_duplicate


class RowChecker:
    """Checks the rows of a file, block by block, in the order of the file.

    Parameters
    ----------
    provenance : Provenance or None
        The events and the threshold that the rows must agree with; None if they are unknown.
    """

    def __init__(self, provenance: Provenance | None) -> None:
        self._provenance = provenance
        self._last_row = Digits.empty()

    def check(self, digits: Digits) -> None:
        """Check that rows are ordered by event, sensor, u, v, that none comes twice, and that they fit the provenance.

        Raises
        ------
        RowError
            If not; unsorted rows are reported before duplicate ones.
        """
        if not len(digits):
            return
        joined = Digits.concatenate([self._last_row, digits])
        # Events are no smaller than 0, so the difference cannot overflow.
        event_step = np.diff(joined.event)
        pixel_step = np.diff(_number_pixels(joined))
        is_same_event = event_step == 0
        if np.any((event_step < 0) | (is_same_event & (pixel_step < 0))):
            message = "digits that are not ordered by event, sensor, u cell, v cell"
            raise RowError(message)
        if np.any(is_same_event & (pixel_step == 0)):
            message = "a digit twice: the same event, sensor, u cell and v cell"
            raise RowError(message, is_duplicate=True)
        self._last_row = digits.select_rows(np.array([-1]))  # a copy, which does not keep the block in memory
        if self._provenance is not None:
            _check_provenance(digits, self._provenance)


def _check_provenance(digits: Digits, provenance: Provenance) -> None:
    first, last = provenance.first_event, provenance.last_event
    if digits.event[0] < first or digits.event[-1] > last:
        message = f"events {digits.event[0]} to {digits.event[-1]}, expected {first} to {last} by its own metadata"
        raise RowError(message)
    smallest = int(digits.charge.min())
    if smallest < provenance.min_charge:
        message = f"charges from {smallest} ADU on, below its own threshold of {provenance.min_charge} ADU"
        raise RowError(message)


def sort_rows(digits: Digits) -> Digits:
    """Order digits by event, sensor, u cell, v cell."""
    return digits.select_rows(np.lexsort((_number_pixels(digits), digits.event)))


def convert_columns(columns: Columns) -> Digits:
    """Convert columns of integers of any width and byte order to `Digits`, with the rows in any order.

    Raises
    ------
    RowError
        If a value is outside the limits of a digit.
    """
    narrowed: dict[str, NDArray[np.generic]] = {}
    for name, dtype in COLUMN_DTYPES.items():
        column = columns[name]
        # Before it is narrowed, which would wrap what is too large.
        if name == "sensor_id":
            _check_sensors(column)
        elif len(column):
            _check_range(name, column)
        narrowed[name] = column.astype(dtype, copy=False)
    return Digits(**narrowed)  # type: ignore[arg-type]  # the constructor checks the dtypes


def _check_sensors(column: NDArray[np.generic]) -> None:
    largest = min(len(_IS_SENSOR) - 1, int(np.iinfo(column.dtype.str).max))
    is_sensor = _IS_SENSOR[np.clip(column, 0, largest).astype(np.uint16)]  # 0 and 65535 are no sensors
    if not is_sensor.all():
        message = f"the VxdID {column[is_sensor.argmin()]}, which is no sensor of the PXD"
        raise RowError(message)


def _check_range(name: str, column: NDArray[np.generic]) -> None:
    low, high = _LIMITS[name]
    smallest, largest = int(column.min()), int(column.max())
    if not (low <= smallest and largest <= high):
        message = f"{name} from {smallest} to {largest}, expected {low} to {high}"
        raise RowError(message)


def _number_pixels(digits: Digits) -> NDArray[np.int64]:
    """Compute a number of each pixel that grows in the order of digits: VxdIDs ascend with the sensors' index."""
    pixel = digits.sensor_id.astype(np.int64) << _SENSOR_BITS
    pixel |= digits.u_cell.astype(np.int64) << _U_BITS
    pixel |= digits.v_cell
    return pixel
