"""Checks of rows that come from outside: each is a digit of the PXD, and each pixel of an event comes once, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from pxdbg_runtime.checks import MAX_EVENT
from pxdbg_runtime.digits import COLUMN_DTYPES, Digits
from pxdbg_runtime.errors import DigitFileError
from pxdbg_runtime.formats.sources import report_damage
from pxdbg_runtime.sensors import N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.provenance import Provenance
    from pxdbg_runtime.formats.sources import DigitSource

__all__ = [
    "CHANGED",
    "RowChecker",
    "RowError",
    "read_blocks",
    "refuse_rows",
    "select_events",
    "select_rows",
    "sort_rows",
]

CHANGED: Final = "it is damaged, or was changed after it was written: generate it again"
"""What a file is whose digest does not fit."""
_LIMITS: Final = {
    "event": (0, MAX_EVENT),
    "u_cell": (0, N_U_CELLS - 1),
    "v_cell": (0, N_V_CELLS - 1),
    "charge": (1, 255),
}
_IS_SENSOR: Final = np.zeros(1 << 16, dtype=bool)
_IS_SENSOR[[sensor.vxd_id for sensor in SENSORS]] = True
_U_BITS: Final = 10
_SENSOR_BITS: Final = 18

Disorder = Literal["unsorted", "duplicated"]


class RowError(Exception):
    """Rows are not what they must be; the message goes on after "a.parquet holds"."""

    def __init__(self, message: str, *, is_duplicate: bool = False) -> None:
        super().__init__(message)
        self.is_duplicate = is_duplicate


class RowChecker:
    """Checks the rows of a file, block by block, in the order of the file.

    Parameters
    ----------
    how : Provenance or None
        What the file says of itself: its events, and its threshold. None if it says nothing.
    """

    def __init__(self, how: Provenance | None) -> None:
        self._how = how
        self._last: Digits | None = None

    def check(self, digits: Digits) -> None:
        """Check that rows are ordered by event, sensor, u, v, that none comes twice, and that they fit what was said.

        Raises
        ------
        RowError
            If not.
        """
        if not len(digits):
            return
        disorder = _find_disorder(digits, self._last)
        if disorder == "duplicated":
            message = "a digit twice: the same event, sensor, u cell and v cell"
            raise RowError(message, is_duplicate=True)
        if disorder == "unsorted":
            message = "digits that are not ordered by event, sensor, u cell, v cell"
            raise RowError(message)
        self._last = _last_row(digits)
        if self._how is None:
            return
        first, last = self._how.first_event, self._how.last_event
        if digits.event[0] < first or digits.event[-1] > last:
            message = f"events {digits.event[0]} to {digits.event[-1]}, expected {first} to {last} by its own metadata"
            raise RowError(message)
        smallest = int(digits.charge.min())
        if smallest < self._how.min_charge:
            message = f"charges from {smallest} ADU on, below its own threshold of {self._how.min_charge} ADU"
            raise RowError(message)


def _find_disorder(digits: Digits, before: Digits | None = None) -> Disorder | None:
    """Find what is wrong with the order of rows, unsorted rows before duplicated ones.

    Parameters
    ----------
    digits : Digits
        At least one.
    before : Digits, optional
        The row before the first one.
    """
    joined = digits if before is None else Digits.concatenate([before, digits])
    # Events are no smaller than 0, so the difference cannot overflow.
    step_of_event = np.diff(joined.event)
    step_of_pixel = np.diff(_pixels(joined))
    in_event = step_of_event == 0
    if np.any((step_of_event < 0) | (in_event & (step_of_pixel < 0))):
        return "unsorted"
    return "duplicated" if np.any(in_event & (step_of_pixel == 0)) else None


def _last_row(digits: Digits) -> Digits:
    """Give the last row, on its own memory."""
    return Digits(**{name: getattr(digits, name)[-1:].copy() for name in COLUMN_DTYPES})


def sort_rows(digits: Digits) -> Digits:
    """Order digits by event, sensor, u cell, v cell."""
    order = np.lexsort((_pixels(digits), digits.event))
    return Digits(**{name: getattr(digits, name)[order] for name in COLUMN_DTYPES})


def select_rows(digits: Digits, start: int, stop: int) -> Digits:
    """Give consecutive rows."""
    return Digits(**{name: getattr(digits, name)[start:stop] for name in COLUMN_DTYPES})


def select_events(digits: Digits, first: int, last: int) -> Digits:
    """Give the digits of the events from first to last, in the order in which they are."""
    chosen = (digits.event >= first) & (digits.event <= last)
    return Digits(**{name: getattr(digits, name)[chosen] for name in COLUMN_DTYPES})


def read_blocks(path: Path, source: DigitSource) -> Iterator[Digits]:
    """Read the rows of a file in blocks; each row is a digit of the PXD, in whatever order.

    Raises
    ------
    DigitFileError
        If the file is damaged, or holds what is no digit.
    """
    with report_damage(path):
        for columns in source.blocks():
            try:
                digits = _digits_of_columns(columns)
            except RowError as error:
                raise refuse_rows(path, error) from None
            yield digits


def refuse_rows(path: Path, error: RowError, *, has_digest: bool = False) -> DigitFileError:
    """Make the error of a file whose rows are not what they must be."""
    if has_digest:
        advice = CHANGED
    elif error.is_duplicate:
        advice = "leave out what was merged twice, or generate it again"
    else:
        advice = "generate it again"
    return DigitFileError(path, f"{path} holds {error}: {advice}.")


def _digits_of_columns(columns: Mapping[str, NDArray[np.generic]]) -> Digits:
    """Make `Digits` of columns of integers of any width and byte order, in any order of columns.

    Raises
    ------
    RowError
        If a value is none that a digit can have.
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
    """Refuse the first VxdID that is none of the PXD's."""
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


def _pixels(digits: Digits) -> NDArray[np.int64]:
    """Give each digit a number of its pixel that grows in the order of digits: VxdIDs ascend with the sensors' index."""
    pixel = digits.sensor_id.astype(np.int64) << _SENSOR_BITS
    pixel |= digits.u_cell.astype(np.int64) << _U_BITS
    pixel |= digits.v_cell
    return pixel
