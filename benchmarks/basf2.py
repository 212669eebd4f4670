"""``basf2``: the digits of one event go into ROOT's array, in one call of compiled code and one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from types import ModuleType
from typing import Final

import numpy as np

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import check_installed
from benchmarks.report import Claim
from benchmarks.timing import Case, Measurement, Run, build_cases, find_measurement, time_run
from pxdbg_runtime import N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.basf2.filling import compile_bulk_fill, fill_in_bulk, fill_one_by_one
from pxdbg_runtime.basf2.release import ClonesArray, Digit, StoreArray
from pxdbg_runtime.errors import MissingReleaseError
from pxdbg_runtime.formats.overlay_classes import compile_classes
from pxdbg_runtime.formats.root_library import import_root

_N_DIGITS: Final = 70_000
"""About as many as a real event has."""
_MAX_MS: Final = 20.0
_MS: Final = "ms"
_BULK: Final = "in bulk"


class _Array:
    """The part of basf2's store array that a fill needs, around ROOT's array."""

    def __init__(self, root: ModuleType) -> None:
        self._array = root.TClonesArray(root.Belle2.PXDDigit.Class())

    def getPtr(self) -> ClonesArray:  # noqa: N802
        """Return ROOT's array."""
        array: ClonesArray = self._array
        return array

    def appendNew(self) -> Digit:  # noqa: N802
        """Append an element."""
        digit: Digit = self._array.ConstructedAt(self._array.GetEntriesFast())
        return digit


def _draw_digits(n_digits: int) -> Digits:
    """Draw random digits in all sensors."""
    random = np.random.default_rng(1)
    return Digits(
        event=np.zeros(n_digits, dtype=np.int64),
        sensor_id=np.sort(random.choice([sensor.vxd_id for sensor in SENSORS], n_digits)).astype(np.uint16),
        u_cell=random.integers(0, N_U_CELLS, n_digits).astype(np.uint16),
        v_cell=random.integers(0, N_V_CELLS, n_digits).astype(np.uint16),
        charge=random.integers(1, 256, n_digits).astype(np.uint8),
    )


def _list_cases(_plan: Plan) -> Generator[tuple[Case, ...], None, None]:
    digits = _draw_digits(_N_DIGITS)
    fills = {_BULK: fill_in_bulk, "one by one": fill_one_by_one}
    yield build_cases((), {name: partial(_prepare, fill, digits) for name, fill in fills.items()}, _MS)


def _prepare(fill: Callable[[ModuleType, StoreArray, Digits], None], digits: Digits) -> Run:
    root = _import_root()
    array = _Array(root)
    run = time_run(lambda: fill(root, array, digits))
    return lambda: tuple(seconds * 1000 for seconds in run())


def _import_root() -> ModuleType:
    """Import ROOT, declare the classes of basf2 if there is no release, and compile the bulk fill."""
    check_installed("ROOT")
    root = import_root("The benchmark of ROOT's array")
    compile_classes(root)
    if not compile_bulk_fill(root):
        raise MissingReleaseError("ROOT", "ROOT's interpreter did not compile the bulk fill")
    return root


def _find_claims(_plan: Plan, measurements: Sequence[Measurement]) -> tuple[Claim, ...]:
    samples = find_measurement(measurements, _BULK).samples
    what = f"{_N_DIGITS:,} digits in bulk, {_MS}"
    return (Claim(model="any", what=what, bound="at most", target=_MAX_MS, samples=samples),)


BENCHMARK: Final = Benchmark(
    name="basf2",
    help="Digits into ROOT's array: in one call of compiled code, and one by one. Needs ROOT.",
    columns=("what",),
    remarks=("A TClonesArray of PXDDigit is cleared and filled with random digits; no model is used.",),
    takes_family=False,
    cases=_list_cases,
    title=f"{_N_DIGITS:,} digits into ROOT's array",
    claim_title="Targets",
    find_claims=_find_claims,
)
