"""Seams: steps or stripes where a generator's upsampled blocks meet, and the outermost cells of a sensor.

A profile counts the hits of each u cell, or of each v cell, over all sensors and events. `fold` divides its trend, a
running mean over two periods, out of it and averages the cells of equal phase. A profile without seams folds to 1
everywhere. The errors come from the spread between the periods, as the hits of a cluster are correlated and do not
follow Poisson's law.

A generated image has 256 rows, of which the first three and the last three are cut off. So the row of a u cell is
u + 3, and seams along u lie where u + 3 is a multiple of the period. Along v nothing is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BORDER_CELLS",
    "FIRST_GENERATED",
    "MIN_SIGNIFICANCE",
    "PERIODS",
    "SEAM_BOUND_PERCENT",
    "Axis",
    "BorderRatio",
    "Fold",
    "Seam",
    "Verdict",
    "find_seam",
    "find_seams",
    "fold",
    "measure_borders",
]

Axis = Literal["u", "v"]
Verdict = Literal["pass", "fail", "too few hits"]

PERIODS: Final = (8, 16, 32)
SEAM_BOUND_PERCENT: Final = 5.0
"""A folded profile that stays within this of 1 passes."""
MIN_SIGNIFICANCE: Final = 3.0
"""Fewer standard errors beyond the bound may be noise: a seam is the largest of up to 32 phases."""
BORDER_CELLS: Final = 8
"""Outer cells on each side that belong neither to the fold nor to the interior."""
FIRST_GENERATED: Final[dict[Axis, int]] = {"u": 3, "v": 0}
"""The generated row or column that becomes cell 0."""
_BORDER_WIDTHS: Final = (1, 2, 4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """A folded profile.

    Attributes
    ----------
    ratios : ndarray of float64, shape (periods, period)
        Hits over the trend; each row starts half a period before a boundary.
    mean, error : ndarray of float64, shape (period,)
        Mean over the periods and its standard error, by phase: generated row or column modulo the period.
    """

    ratios: NDArray[np.float64]
    mean: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Seam:
    """The largest deviation of a profile folded at one period.

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
        Hits of the two cells next to a boundary, relative to the other cells of the period, and the standard error.
    boundaries : int
        Number of folded periods.
    verdict : {"pass", "fail", "too few hits"}
        Whether the deviation is below 5 %; "too few hits" if it is larger, but by less than three standard errors, its
        own or the root mean square of all phases.
    """

    axis: Axis
    period: int
    phase: int
    deviation_percent: float
    deviation_error_percent: float
    boundary_excess_percent: float
    boundary_error_percent: float
    boundaries: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class BorderRatio:
    """Hits of the outermost cells.

    Attributes
    ----------
    axis : {"u", "v"}
    width : int
        Number of outermost cells on each side that are averaged.
    low, high : float
        Their mean hits at the small and at the large cell numbers, relative to the mean of the interior.
    """

    axis: Axis
    width: int
    low: float
    high: float


def find_seams(u_profile: NDArray[np.int64], v_profile: NDArray[np.int64]) -> tuple[Seam, ...]:
    """Look for seams along both axes at each period that `fold` can treat."""
    profiles: dict[Axis, NDArray[np.int64]] = {"u": u_profile, "v": v_profile}
    found = [find_seam(profile, axis, period) for axis, profile in profiles.items() for period in PERIODS]
    return tuple(seam for seam in found if seam is not None)


def find_seam(profile: NDArray[np.int64], axis: Axis, period: int) -> Seam | None:
    """Find the largest deviation at one period; arguments and None as for `fold`."""
    folded = fold(profile, axis, period)
    if folded is None:
        return None
    phase = int(np.abs(folded.mean - 1).argmax())
    deviation, error = 100 * float(folded.mean[phase] - 1), 100 * float(folded.error[phase])
    # The spread of one phase over five periods may be small by chance; that of all phases is not.
    mean_error = 100 * float(np.sqrt(np.square(folded.error).mean()))
    ratios = folded.ratios
    touches = np.isin(np.arange(period), (period // 2 - 1, period // 2))
    excess = ratios[:, touches].mean(axis=1) / ratios[:, ~touches].mean(axis=1) - 1
    return Seam(
        axis=axis,
        period=period,
        phase=phase,
        deviation_percent=deviation,
        deviation_error_percent=error,
        boundary_excess_percent=100 * float(excess.mean()),
        boundary_error_percent=100 * float(excess.std(ddof=1) / np.sqrt(len(ratios))),
        boundaries=len(ratios),
        verdict=_judge(abs(deviation), max(error, mean_error)),
    )


def _judge(deviation_percent: float, error_percent: float) -> Verdict:
    if deviation_percent < SEAM_BOUND_PERCENT:
        return "pass"
    excess = deviation_percent - SEAM_BOUND_PERCENT
    return "too few hits" if excess < MIN_SIGNIFICANCE * error_percent else "fail"


def fold(profile: NDArray[np.int64], axis: Axis, period: int) -> Fold | None:
    """Divide the trend out of a profile and average its cells by phase.

    Parameters
    ----------
    profile : ndarray, shape (cells,)
        Hits of each cell.
    axis : {"u", "v"}
        Determines which generated row or column is cell 0.
    period : int
        Cells, even.

    Returns
    -------
    Fold or None
        None if the trend is zero somewhere, or the cells before a boundary are.
    """
    inner = profile[BORDER_CELLS:-BORDER_CELLS].astype(np.float64)
    # Two whole periods, the end cells with half the weight, so that each phase has the same weight.
    weights = np.ones(2 * period + 1)
    weights[[0, -1]] = 0.5
    trend = np.convolve(inner, weights / weights.sum(), mode="valid")
    if not (trend > 0).all():
        return None
    ratio = inner[period:-period] / trend
    first = BORDER_CELLS + period + FIRST_GENERATED[axis]
    n_skipped = (period // 2 - first) % period
    n_periods = (len(ratio) - n_skipped) // period
    ratios = ratio[n_skipped : n_skipped + n_periods * period].reshape(n_periods, period)
    if not ratios[:, 1 : period // 2 - 1].any(axis=1).all():
        return None
    return Fold(
        ratios=ratios,
        mean=np.roll(ratios.mean(axis=0), -(period // 2)),
        error=np.roll(ratios.std(axis=0, ddof=1) / np.sqrt(n_periods), -(period // 2)),
    )


def measure_borders(profile: NDArray[np.int64], axis: Axis) -> tuple[BorderRatio, ...]:
    """Compare the outermost cells with the interior, which excludes the outer eight on each side.

    Empty for a profile whose interior has no hit.
    """
    interior = float(profile[BORDER_CELLS:-BORDER_CELLS].mean())
    if interior == 0:
        return ()
    return tuple(
        BorderRatio(
            axis=axis,
            width=width,
            low=float(profile[:width].mean()) / interior,
            high=float(profile[-width:].mean()) / interior,
        )
        for width in _BORDER_WIDTHS
    )
