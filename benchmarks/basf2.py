"""``basf2``: one event's digits go into ROOT's array, in one call of compiled code and one by one."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.claims import Claim
from benchmarks.environment import check_installed, describe_environment
from benchmarks.report import Report, claim_table, measurement_table
from benchmarks.timing import Case, chosen, interleaved, timed
from pxdbg_runtime import N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.basf2.filling import compile_bulk_fill, fill_in_bulk, fill_one_by_one
from pxdbg_runtime.errors import MissingReleaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from benchmarks.plan import Plan
    from benchmarks.timing import Run
    from pxdbg_runtime.basf2.release import ClonesArray, Digit, StoreArray

__all__ = ["N_DIGITS", "measure", "spread_digits"]

N_DIGITS: Final = 70_000
"""About those of a real event."""
_MAX_MS: Final = 20.0
_COLUMNS: Final = ("what",)
_BULK: Final = "in bulk"
_LOOP: Final = "one by one"
_MS: Final = "ms"
_REMARK: Final = "A TClonesArray of PXDDigit is cleared and filled; the digits are at random, no model takes part."

# Where there is no release: the two classes as basf2 describes them.
_CLASSES: Final = """
#include <TObject.h>
namespace Belle2 {
  class VxdID {
  public:
    VxdID(unsigned short id = 0) : m_id(id) {}
    operator unsigned short() const { return m_id; }
  private:
    unsigned short m_id;
  };
  class PXDDigit : public TObject {
  public:
    PXDDigit() : m_sensorID(0), m_uCellID(0), m_vCellID(0), m_charge(0) {}
    PXDDigit(VxdID sensorID, unsigned short uCellID, unsigned short vCellID, unsigned short charge)
      : m_sensorID(sensorID), m_uCellID(uCellID), m_vCellID(vCellID), m_charge(charge) {}
    static TClass* Class() { return TClass::GetClass("Belle2::PXDDigit"); }
    TClass* IsA() const override { return Class(); }
  private:
    unsigned short m_sensorID, m_uCellID, m_vCellID, m_charge;
  };
}
"""


class _Array:
    """What a fill needs of basf2's store array, around ROOT's array alone."""

    def __init__(self, root: ModuleType) -> None:
        self._array = root.TClonesArray(root.Belle2.PXDDigit.Class())

    def getPtr(self) -> ClonesArray:  # noqa: N802
        """Give ROOT's array."""
        array: ClonesArray = self._array
        return array

    def appendNew(self) -> Digit:  # noqa: N802
        """Append an element."""
        made: Digit = self._array.ConstructedAt(self._array.GetEntriesFast())
        return made


def measure(plan: Plan) -> Report:
    """Measure both ways to fill the array, on as many digits as a real event has."""
    environment = describe_environment()
    digits = spread_digits(N_DIGITS)
    fills = {_BULK: fill_in_bulk, _LOOP: fill_one_by_one}
    cases = tuple(
        Case(rows=((what,),), prepare=functools.partial(_prepared, fill, digits), unit=_MS)
        for what, fill in fills.items()
    )
    measurements = interleaved(cases, plan.rounds, plan.log)
    claim = Claim(
        model="any",
        what=f"{N_DIGITS:,} digits in bulk, {_MS}",
        bound="at most",
        target=_MAX_MS,
        samples=chosen(measurements, _BULK).samples,
    )
    return Report(
        command="basf2",
        environment=environment,
        remarks=(_REMARK,),
        columns=_COLUMNS,
        measurements=measurements,
        claims=(claim,),
        tables=(
            measurement_table(f"{N_DIGITS:,} digits into ROOT's array", _COLUMNS, measurements),
            claim_table("What was to be reached", (claim,)),
        ),
    )


def spread_digits(n_digits: int) -> Digits:
    """Make digits at random in all sensors."""
    random = np.random.default_rng(1)
    return Digits(
        event=np.zeros(n_digits, dtype=np.int64),
        sensor_id=np.sort(random.choice([sensor.vxd_id for sensor in SENSORS], n_digits)).astype(np.uint16),
        u_cell=random.integers(0, N_U_CELLS, n_digits).astype(np.uint16),
        v_cell=random.integers(0, N_V_CELLS, n_digits).astype(np.uint16),
        charge=random.integers(1, 256, n_digits).astype(np.uint8),
    )


def _prepared(fill: Callable[[ModuleType, StoreArray, Digits], None], digits: Digits) -> Run:
    root = _root()
    array = _Array(root)
    run = timed(lambda: fill(root, array, digits))
    return lambda: tuple(seconds * 1000 for seconds in run())


def _root() -> ModuleType:
    """Import ROOT, with the classes of the release or with their like, and compile the bulk fill."""
    check_installed("ROOT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the wheel says on import that it is young
        import ROOT
    root: ModuleType = ROOT
    if not (hasattr(root, "Belle2") and hasattr(root.Belle2, "PXDDigit")):
        root.gInterpreter.Declare(_CLASSES)
    if not compile_bulk_fill(root):
        message = "ROOT's interpreter did not compile the bulk fill"
        raise MissingReleaseError("ROOT", message)
    return root
