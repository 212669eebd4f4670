"""Write digits to the data store: in one call of compiled code, or one by one if that does not compile."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.basf2.release import StoreArray
    from pxdbg_runtime.digits import Digits

__all__ = ["compile_bulk_fill", "fill_in_bulk", "fill_one_by_one"]

# The header serves releases whose dictionary does not name it; other releases know the classes without it.
_SOURCE: Final = """
#include <TClonesArray.h>
#if __has_include(<pxd/dataobjects/PXDDigit.h>)
#include <pxd/dataobjects/PXDDigit.h>
#endif
namespace pxdbg_runtime {
  void fill_digits(TClonesArray& digits, const unsigned short* sensor_id, const unsigned short* u_cell,
                   const unsigned short* v_cell, const unsigned char* charge, int n_digits)
  {
    digits.Delete();
    if (n_digits > digits.GetSize()) digits.Expand(n_digits);
    for (int i = 0; i < n_digits; ++i)
      new (digits[i]) Belle2::PXDDigit(Belle2::VxdID(sensor_id[i]), u_cell[i], v_cell[i], charge[i]);
  }
}
"""

_log = logging.getLogger(__name__)


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
