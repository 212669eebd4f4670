"""Seams: steps or stripes that a generator leaves where its upsampled blocks meet.

A profile counts the hits of each u cell, or of each v cell, over all sensors and events. Its trend, a running mean over
two periods, is divided out, and what is left is folded: cells that lie equally far behind a boundary are averaged. A
profile without seams folds to 1 everywhere. The errors come from the spread between the periods, as hits of a cluster
come together and do not follow Poisson's law.

A generator makes images of 256 rows, of which the first three and the last three are cut off. So the row of a u cell is
u + 3, and seams along u lie where u + 3 is a multiple of the period. Along v nothing is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BORDER_WIDTHS",
    "PERIODS",
    "SEAM_BOUND_PERCENT",
    "Axis",
    "BorderRatio",
    "Fold",
    "Seam",
    "Verdict",
    "border_ratios",
    "find_seam",
    "find_seams",
    "fold",
]

Axis = Literal["u", "v"]
Verdict = Literal["pass", "fail", "too few hits"]

PERIODS: Final = (8, 16, 32)
SEAM_BOUND_PERCENT: Final = 5.0
"""A folded profile that stays within this of 1 passes."""
BORDER_WIDTHS: Final = (1, 2, 4)
_BORDER: Final = 8
"""Outer cells on each side that are no part of the fold nor of the interior."""
_CROPPED: Final[dict[Axis, int]] = {"u": 3, "v": 0}
"""Generated rows or columns before cell 0."""
_SIGNIFICANT: Final = 3.0
"""Standard errors from which on a deviation is more than noise: the largest of up to 32 phases is looked at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """A profile without its trend, folded.

    Attributes
    ----------
    ratios : ndarray of float64, shape (periods, period)
        Hits over the trend; each row begins half a period before a boundary, which lies in its middle.
    mean, error : ndarray of float64, shape (period,)
        Of the periods, and its standard error, by phase: generated row or column modulo the period.
    """

    ratios: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Seam:
    """What a profile shows at one period.

    Attributes
    ----------
    axis : {"u", "v"}
    period : int
        Cells.
    phase : int
        The generated row or column, modulo the period, whose fold deviates most from 1.
    deviation_percent, deviation_error_percent : float
        That deviation, with its sign, and its standard error.
    boundary_excess_percent, boundary_error_percent : float
        Hits of the two cells that touch a boundary, one on either side, relative to the other cells of the period, and
        the standard error of that.
    boundaries : int
        Periods that were folded.
    """

    axis: Axis
    period: int
    phase: int
    deviation_percent: float
    deviation_error_percent: float
    boundary_excess_percent: float
    boundary_error_percent: float
    boundaries: int

    @property
    def verdict(self) -> Verdict:
        """Whether the deviation is below 5 %; one that is not, but is no more than noise, decides nothing."""
        if abs(self.deviation_percent) < SEAM_BOUND_PERCENT:
            return "pass"
        is_noise = abs(self.deviation_percent) < _SIGNIFICANT * self.deviation_error_percent
        return "too few hits" if is_noise else "fail"


@dataclass(frozen=True, kw_only=True)
class BorderRatio:
    """Hits of the outermost cells.

    Attributes
    ----------
    axis : {"u", "v"}
    width : int
        Outermost cells on each side that are averaged.
    low, high : float
        Mean hits of those at the small and at the large cell numbers, relative to the mean of the interior.
    """

    axis: Axis
    width: int
    low: float
    high: float


def find_seams(u_profile: NDArray[np.int64], v_profile: NDArray[np.int64]) -> tuple[Seam, ...]:
    """Look for seams along both axes at each period; profiles with cells that never fire have none to tell of."""
    profiles: dict[Axis, NDArray[np.int64]] = {"u": u_profile, "v": v_profile}
    found = [find_seam(profile, axis, period) for axis, profile in profiles.items() for period in PERIODS]
    return tuple(seam for seam in found if seam is not None)


def find_seam(profile: NDArray[np.int64], axis: Axis, period: int) -> Seam | None:
    """Look for seams of one period; arguments and None as for `fold`."""
    folded = fold(profile, axis, period)
    if folded is None:
        return None
    worst = int(np.abs(folded.mean - 1).argmax())
    touching = np.isin(np.arange(period), (0, period - 1))
    # The period of a row of the table begins half a period before a boundary, so it has both sides of one.
    touching_here = np.roll(touching, period // 2)
    table = folded.ratios
    excess = table[:, touching_here].mean(axis=1) / table[:, ~touching_here].mean(axis=1) - 1
    return Seam(
        axis=axis,
        period=period,
        phase=worst,
        deviation_percent=100 * float(folded.mean[worst] - 1),
        deviation_error_percent=100 * float(folded.error[worst]),
        boundary_excess_percent=100 * float(excess.mean()),
        boundary_error_percent=100 * float(excess.std(ddof=1) / np.sqrt(len(table))),
        boundaries=len(table),
    )


def fold(profile: NDArray[np.int64], axis: Axis, period: int) -> Fold | None:
    """Divide the trend out of a profile and fold it.

    Parameters
    ----------
    profile : ndarray, shape (cells,)
        Hits of each cell.
    axis : {"u", "v"}
        Says how many generated rows or columns lie before cell 0.
    period : int
        Cells, even.

    Returns
    -------
    Fold or None
        None if the trend, or a whole period without its boundary, is zero somewhere.
    """
    inner = profile[_BORDER:-_BORDER].astype(np.float64)
    # Two whole periods, the ends with half the weight: each phase weighs the same, so the trend takes none in.
    weights = np.ones(2 * period + 1)
    weights[[0, -1]] = 0.5
    trend = np.convolve(inner, weights / weights.sum(), mode="valid")
    if not (trend > 0).all():
        return None
    ratio = inner[period:-period] / trend
    generated = np.arange(len(ratio)) + _BORDER + period + _CROPPED[axis]
    skipped = int((period // 2 - generated[0]) % period)
    n_periods = (len(ratio) - skipped) // period
    table = ratio[skipped : skipped + n_periods * period].reshape(n_periods, period)
    if not table[:, 1 : period // 2 - 1].any(axis=1).all():
        return None
    # From half a period before a boundary on; rolled back, phase 0 comes first.
    return Fold(
        ratios=table,
        mean=np.roll(table.mean(axis=0), -(period // 2)),
        error=np.roll(table.std(axis=0, ddof=1) / np.sqrt(n_periods), -(period // 2)),
    )


def border_ratios(profile: NDArray[np.int64], axis: Axis) -> tuple[BorderRatio, ...]:
    """Compare the outermost cells with the interior, which is all but the outer eight on each side.

    Nothing is told of a profile whose interior has no hit.
    """
    interior = float(profile[_BORDER:-_BORDER].mean())
    if interior == 0:
        return ()
    return tuple(
        BorderRatio(
            axis=axis,
            width=width,
            low=float(profile[:width].mean()) / interior,
            high=float(profile[-width:].mean()) / interior,
        )
        for width in BORDER_WIDTHS
    )
