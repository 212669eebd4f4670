"""Write digits to the data store: with basf2's own bulk fill, with a compiled one, or one by one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pxdbg_runtime.basf2.release import StoreArray
    from pxdbg_runtime.digits import Digits

    Fill = Callable[[ModuleType, StoreArray, Digits], None]

__all__ = ["HEADER", "choose_fill", "compile_bulk_fill", "fill_by_release", "fill_in_bulk", "fill_one_by_one"]

HEADER: Final = "pxd/dataobjects/PXDDigit.h"
"""Serves releases whose dictionary does not name it; other releases know the classes without it."""
_SOURCE: Final = f"""
#include <TClonesArray.h>
#if __has_include(<{HEADER}>)
#include <{HEADER}>
#endif
namespace pxdbg_runtime {{
  void fill_digits(TClonesArray& digits, const unsigned short* sensor_id, const unsigned short* u_cell,
                   const unsigned short* v_cell, const unsigned char* charge, int n_digits)
  {{
    digits.Delete();
    if (n_digits > digits.GetSize()) digits.Expand(n_digits);
    for (int i = 0; i < n_digits; ++i)
      new (digits[i]) Belle2::PXDDigit(Belle2::VxdID(sensor_id[i]), u_cell[i], v_cell[i], charge[i]);
  }}
}}
"""

_log = logging.getLogger(__name__)


def choose_fill(root: ModuleType, array: StoreArray) -> tuple[Fill, str]:
    """Choose the fastest function that works here.

    Parameters
    ----------
    root : module
        As for `compile_bulk_fill`.
    array : StoreArray
        Of PXDDigit.

    Returns
    -------
    fill : callable
        `fill_by_release` where basf2 has ``PyStoreArray.fillArray``, else `fill_in_bulk` if it compiles, else
        `fill_one_by_one`; its arguments are root, array and digits.
    description : str
        How it writes digits.
    """
    if hasattr(array, "fillArray"):
        return fill_by_release, "with PyStoreArray.fillArray"
    if compile_bulk_fill(root):
        return fill_in_bulk, "with a compiled function"
    return fill_one_by_one, "one by one"


def compile_bulk_fill(root: ModuleType) -> bool:
    """Compile the bulk fill with ROOT's interpreter, once per process; forked processes inherit it.

    Parameters
    ----------
    root : module
        ``ROOT``, after a look-up of ``Belle2.PXDDigit`` and ``Belle2.VxdID``, which loads both.

    Returns
    -------
    bool
        Whether `fill_in_bulk` can be called.
    """
    if hasattr(root, "pxdbg_runtime") and hasattr(root.pxdbg_runtime, "fill_digits"):
        return True
    if root.gInterpreter.Declare(_SOURCE):
        return True
    _log.warning("ROOT's interpreter did not compile the bulk fill: digits are written to the data store one by one.")
    return False


def fill_by_release(root: ModuleType, array: StoreArray, digits: Digits) -> None:  # noqa: ARG001  # as the others
    """Do the same as `fill_in_bulk` with ``PyStoreArray.fillArray``, which appends and exists since 2024-07."""
    array.getPtr().Delete()
    if len(digits) == 0:
        return
    columns = {
        "sensorID": digits.sensor_id,
        "uCellID": digits.u_cell,
        "vCellID": digits.v_cell,
        "charge": digits.charge,
    }
    # PXDDigit holds unsigned shorts.
    converted = {name: np.ascontiguousarray(column, dtype=np.uint16) for name, column in columns.items()}
    array.fillArray(**converted)  # type: ignore[attr-defined]  # not in every release


def fill_in_bulk(root: ModuleType, array: StoreArray, digits: Digits) -> None:
    """Replace the content of a store array with digits, in one call.

    Parameters
    ----------
    root : module
        ``ROOT``, after `compile_bulk_fill`.
    array : StoreArray
        Of PXDDigit, registered.
    digits : Digits
        Of one event.
    """
    if len(digits) == 0:  # PyROOT does not convert an empty array to a pointer
        array.getPtr().Delete()
        return
    columns = (digits.sensor_id, digits.u_cell, digits.v_cell, digits.charge)
    contiguous = [np.ascontiguousarray(column) for column in columns]
    root.pxdbg_runtime.fill_digits(array.getPtr(), *contiguous, len(digits))


def fill_one_by_one(root: ModuleType, array: StoreArray, digits: Digits) -> None:
    """Do the same as `fill_in_bulk` with basf2's own functions only, some hundred times slower."""
    make_digit, make_id = root.Belle2.PXDDigit, root.Belle2.VxdID
    array.getPtr().Delete()
    columns = (digits.sensor_id, digits.u_cell, digits.v_cell, digits.charge)
    for sensor_id, u_cell, v_cell, charge in zip(*(column.tolist() for column in columns), strict=True):
        array.appendNew().__assign__(make_digit(make_id(sensor_id), u_cell, v_cell, charge))
