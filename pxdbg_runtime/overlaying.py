"""Overlay: add the charges of background digits to those of signal digits, by the rule of basf2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.digits import COLUMN_DTYPES, Digits, DigitTable, number_pixels, order_rows
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.sensors import MAX_CHARGE_ADU

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_SUM_ADU", "OVERLAID_DTYPES", "OverlaidDigits", "overlay", "overlay_event"]

OVERLAID_DTYPES: Final[dict[str, np.dtype[np.generic]]] = {**COLUMN_DTYPES, "charge": np.dtype(np.uint16)}
"""Columns of `OverlaidDigits`, in order."""
MAX_SUM_ADU: Final = int(np.iinfo(np.uint16).max)
"""Largest charge of an overlaid digit; larger sums start again from 0, as those of basf2's 16-bit integers."""
_KernelInput = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class OverlaidDigits(DigitTable):
    """Digits of signal and background: as `Digits`, but with charges of 16 bits.

    They are ordered by event, sensor, u cell, v cell. All arrays have the same length and are read-only.

    Attributes
    ----------
    event : ndarray of int64
    sensor_id, u_cell, v_cell : ndarray of uint16
    charge : ndarray of uint16
        ADU; can exceed 255, unless `overlay` was called with saturate=255.

    Raises
    ------
    ArgumentTypeError
        If an array has another dtype.
    ArgumentValueError
        If the arrays are not one-dimensional and of equal length.
    """

    _dtypes = OVERLAID_DTYPES
    charge: NDArray[np.uint16]

    def to_digits(self) -> Digits:
        """Convert to `Digits`, whose charges have 8 bits.

        Raises
        ------
        ArgumentValueError
            If a charge is larger than 255 ADU.
        """
        if len(self) and self.charge.max() > MAX_CHARGE_ADU:
            message = (
                f"Digits hold charges up to {MAX_CHARGE_ADU} ADU, but an overlaid digit has {self.charge.max()}: "
                f"overlay with saturate={MAX_CHARGE_ADU}."
            )
            raise ArgumentValueError("charge", message)
        columns = {name: getattr(self, name) for name in COLUMN_DTYPES}
        return Digits(**{**columns, "charge": self.charge.astype(np.uint8)})


def overlay(
    signal: Digits | OverlaidDigits, background: Digits | OverlaidDigits, *, saturate: int | None = None
) -> OverlaidDigits:
    """Add background to signal, event by event of the same number, by the rule of basf2.

    The charge of a background digit is added to the first signal digit of the same event, sensor, u cell and v cell.
    Without such a signal digit, it is a digit of its own. Sums have 16 bits, as in basf2: they do not stop at 255 ADU,
    and a sum of 65,536 is 0.

    Parameters
    ----------
    signal, background : Digits or OverlaidDigits
        Of one event or more, in any order. Of several signal digits of one channel the first in the array gets the sum;
        several background digits of one channel are all added to it, or are all new digits.
    saturate : int or None
        Larger charges become this one, ADU: 255 for the read-out's eight bits; None keeps the sums.

    Returns
    -------
    OverlaidDigits
        Ordered by event, sensor, u cell, v cell; digits of one channel keep their order. Background of an event without
        any signal digit is kept: a signal event may have no hit in the PXD.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is something else, if a signal event has no background digit, or if `saturate` is not None or an
        integer from 1 to 65,535.

    Examples
    --------
    >>> from pxdbg_runtime.overlaying import overlay
    >>> columns = {"event": np.zeros(2, np.int64), "sensor_id": np.full(2, 8480, np.uint16)}
    >>> columns |= {"u_cell": np.zeros(2, np.uint16), "charge": np.array([200, 9], np.uint8)}
    >>> signal = Digits(**columns, v_cell=np.array([5, 6], np.uint16))
    >>> background = Digits(**columns, v_cell=np.array([5, 7], np.uint16))
    >>> overlay(signal, background).charge
    array([400,   9,   9], dtype=uint16)
    >>> overlay(signal, background, saturate=255).charge
    array([255,   9,   9], dtype=uint16)
    """
    arguments: dict[str, object] = {"signal": signal, "background": background}
    for name, digits in arguments.items():
        if not isinstance(digits, Digits | OverlaidDigits):
            message = f"{name} must be Digits or OverlaidDigits, but is {type(digits).__name__}."
            raise ArgumentTypeError(name, message)
    without = np.setdiff1d(signal.event, background.event)
    if len(without):
        message = (
            f"Signal and background are matched by event number, but signal event {without[0]} has no background "
            f"digit, and {len(without)} signal events in all: give the background the numbers of the signal."
        )
        raise ArgumentValueError("background", message)
    return overlay_event(signal, background, saturate=saturate)


def overlay_event(
    signal: Digits | OverlaidDigits, background: Digits | OverlaidDigits, *, saturate: int | None = None
) -> OverlaidDigits:
    """Add background to signal as `overlay`, but accept signal events without a background digit."""
    # numba, which the import of the package must not load.
    from pxdbg_runtime.digitisation.charge_sums import add_charges

    limit = None if saturate is None else check_integer("saturate", saturate, 1, MAX_SUM_ADU, unit="ADU")
    order, background_order = order_rows(signal), order_rows(background)
    row, charge = np.empty((2, len(signal) + len(background)), dtype=np.int64)
    n_digits = add_charges(*_list_sorted(signal, order), *_list_sorted(background, background_order), row, charge)
    row, charge = row[:n_digits], charge[:n_digits]
    if limit is not None:
        charge = np.minimum(charge, limit)
    chosen = np.concatenate([order, len(signal) + background_order])[row]
    columns = {
        name: np.concatenate([getattr(signal, name), getattr(background, name)])[chosen]
        for name in OVERLAID_DTYPES
        if name != "charge"
    }
    # The conversion keeps the lower 16 bits.
    return OverlaidDigits(**columns, charge=charge.astype(np.uint16))


def _list_sorted(digits: Digits | OverlaidDigits, order: NDArray[np.int64]) -> _KernelInput:
    """List events, channels and charges in this order, of the one type that the kernel is compiled for."""
    return digits.event[order], number_pixels(digits)[order], digits.charge[order].astype(np.int64)
