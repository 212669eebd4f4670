"""Fit the late part of the ConvNet: thresholds, level, and what the clusters look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.optimize import minimize

from artifacts.standins.convnet_painter import (
    GROUPS,
    IS_SINGLE,
    PLACES,
    Growth,
    images,
    paint,
    set_empty,
    set_growth,
    set_thresholds,
)
from artifacts.standins.level import LEVEL_SHARE
from artifacts.standins.level_fit import fit_level, measure_response, rescaled
from artifacts.standins.spectrum import EMPTY, FIRST_HIT, charge_of_value, charge_values, wanted_cumulative

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from artifacts.standins.cells import Cells
    from artifacts.standins.level import Level
    from export.families.convnet import ConvNet

__all__ = ["fit_convnet"]

_CLUSTERS_A_CELL: Final = 0.085
_SINGLE_SHARE: Final = 0.54
"""Of the clusters that are begun."""
_RISE: Final = 0.1
"""Of what exceeds a threshold: where a hit has 7 ADU."""
_LATE_RISE: Final = 0.15
"""The same for the pixels that come later."""
_GROWN_SHARE: Final = 0.34
"""Of the clusters that are no singles, hits or not: those large enough for the pixels that come later."""
_LEAST_WAIT: Final = 0.005
"""From where the first pixels are hits to where the later ones begin to rise."""
_STEEPEST: Final = 10.0
"""Slope above which a piece costs: rounding is enlarged by it."""
_RESPONSE_IMAGES: Final = 24
_CHECKED_IMAGES: Final = 160
_ROUNDS: Final = 3
_QUANTILES: Final = 4_000
_LATER_PIXELS: Final = np.mean([len(group) - 2 for group in GROUPS])
_STEPS: Final = 4_000
_MEDIAN_CLUSTER_CHARGE: Final = 27.0
"""The simulation's, ADU."""
_HIT: Final = -0.25
"""Tanh value from which on a pixel has 7 ADU."""


@dataclass(frozen=True, kw_only=True)
class _Charges:
    """Straight pieces from what exceeds the threshold to values above an empty pixel, for each kind of pixel.

    Attributes
    ----------
    single_knots, knots : ndarray, shape (4,)
        Of singles, and of other clusters.
    single, first, second : ndarray, shape (5,)
        Values at the knots, and the slope after them: of a single, and of a cluster's first and second pixel.
    later_slope : float
        Of the other pixels, which begin at the third knot and have 7 ADU at the fourth.
    """

    single_knots: NDArray[np.float64]
    knots: NDArray[np.float64]
    single: NDArray[np.float64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    later_slope: float

    @classmethod
    def of(cls, logarithms: NDArray[np.float64]) -> _Charges:
        """Make them of thirteen numbers that may have any value."""
        numbers = np.exp(logarithms)
        single, first, second = (
            np.array([0.0, _HIT_VALUE, _HIT_VALUE + rise, _HIT_VALUE + rise + more, slope])
            for rise, more, slope in (numbers[0:3], numbers[3:6], numbers[6:9])
        )
        return cls(
            single_knots=np.cumsum([0.0, _RISE, numbers[10], numbers[11]]),
            knots=np.cumsum([0.0, _RISE, _LEAST_WAIT + numbers[12], _LATE_RISE]),
            single=single,
            first=first,
            second=second,
            later_slope=float(numbers[9]),
        )

    def cluster_charges(
        self, of_single: NDArray[np.float64], of_other: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the charges of clusters, by what exceeds the threshold, ADU; those without a hit have none."""
        single = charge_of_value(EMPTY + _along(self.single_knots, self.single, of_single))
        parts = ((self.first, 1.0), (self.second, 1.0), (self.later(), float(_LATER_PIXELS)))
        other = sum(n * charge_of_value(EMPTY + _along(self.knots, values, of_other)) for values, n in parts)
        return single, np.asarray(other)

    def too_steep(self) -> float:
        """Sum up by how much pieces are steeper than `_STEEPEST`."""
        slopes = [
            np.diff(values[:4]) / np.diff(knots)
            for knots, values in ((self.single_knots, self.single), (self.knots, self.first), (self.knots, self.second))
        ]
        return float(np.maximum(np.concatenate(slopes) - _STEEPEST, 0.0).sum())

    def later(self) -> NDArray[np.float64]:
        """Like `first`, for the pixels that come later."""
        return np.array([0.0, 0.0, 0.0, _HIT_VALUE, self.later_slope])


_HIT_VALUE: Final = FIRST_HIT - EMPTY
_START: Final = np.log([0.3, 0.34, 0.78, 0.36, 0.06, 0.88, 0.16, 0.08, 0.34, 0.88, 0.15, 0.98, 0.01])


def fit_convnet(model: ConvNet, cells: Cells, log: Callable[[str], None]) -> Level:
    """Lay and fit the late part; the level is for the foundation to get.

    Parameters
    ----------
    model : ConvNet
        Changed in place: from `features.13` on.
    cells : Cells
        Of its foundation.
    log : callable
        Told what is done.
    """
    paint(model)
    set_empty(model, EMPTY)
    shares = np.where(IS_SINGLE, _SINGLE_SHARE, 1 - _SINGLE_SHARE) / IS_SINGLE.sum()
    # A detector is open in every fourth cell, in each of which a quarter of them are.
    thresholds = cells.thresholds(_CLUSTERS_A_CELL * shares) - _RISE
    set_thresholds(model, thresholds)
    charges = _START
    levels = np.where(cells.first_latents > 0.25, 0.75, -0.75)
    for _ in range(_ROUNDS):
        log("fitting the charges of the pixels")
        charges = _fitted_charges(
            charges, _excess(cells, thresholds, levels, IS_SINGLE), _excess(cells, thresholds, levels, ~IS_SINGLE)
        )
        _set_charges(model, _Charges.of(charges))
        log("measuring the occupancy at each level")
        response = measure_response(lambda level: _hits(model, cells, np.full(_RESPONSE_IMAGES, level)).mean((1, 2)))
        levels = fit_level(response)(cells.first_latents)
    log("measuring the occupancy of more images")
    levels = levels[:_CHECKED_IMAGES]
    return fit_level(rescaled(response, levels, _hits(model, cells, levels).mean((1, 2))))


def _hits(model: ConvNet, cells: Cells, levels: NDArray[np.float64]) -> NDArray[np.bool_]:
    with torch.no_grad():
        found: NDArray[np.bool_] = torch.cat(
            [images(model, features) >= _HIT for features in cells.batches(levels)]
        ).numpy()
    return found


def _excess(
    cells: Cells, thresholds: NDArray[np.float64], levels: NDArray[np.float64], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Compute what exceeds the thresholds of some detectors, in all cells."""
    added = torch.from_numpy(LEVEL_SHARE * levels).float()[:, None, None]
    found = []
    for detector in np.flatnonzero(chosen).tolist():
        excess = cells.features[:, detector] + (added - float(thresholds[detector]))
        found.append(excess[excess > 0])
    return torch.cat(found).double().numpy()


def _fitted_charges(
    start: NDArray[np.float64], single: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Find the numbers of `_Charges.of` with which the spectrum and the share of large clusters are as wanted."""
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    of_single, of_other = np.quantile(single, quantiles), np.quantile(other, quantiles)
    starts, wanted = charge_values() - EMPTY, wanted_cumulative()

    def below(
        knots: NDArray[np.float64], values: NDArray[np.float64], excess: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Share of the clusters in which a pixel is a hit of less than 7, 8, … 256 ADU."""
        above = _along(knots, values, excess)
        # Values need not increase with the excess.
        counts = np.append(np.searchsorted(np.sort(above), starts), len(above))
        return np.asarray((counts - counts[0]) / len(above))

    def distance(logarithms: NDArray[np.float64]) -> float:
        charges = _Charges.of(logarithms)
        later = below(charges.knots, charges.later(), of_other)
        hits = len(single) * below(charges.single_knots, charges.single, of_single) + len(other) * (
            below(charges.knots, charges.first, of_other)
            + below(charges.knots, charges.second, of_other)
            + _LATER_PIXELS * later
        )
        difference = hits / hits[-1] - wanted
        of_single_clusters, of_other_clusters = charges.cluster_charges(of_single, of_other)
        median = _weighted_median((of_single_clusters, len(single)), (of_other_clusters, len(other)))
        too_small = max(0.0, abs(median / _MEDIAN_CLUSTER_CHARGE - 1) - 0.03)
        too_few = max(0.0, abs(float(later[-1]) - _GROWN_SHARE) - 0.02)
        return float(
            10 * np.abs(difference).max()
            + np.abs(difference).sum()
            + 5 * too_few
            + 5 * too_small
            + 0.1 * charges.too_steep()
        )

    options = {"maxiter": _STEPS, "maxfev": _STEPS, "adaptive": True}
    found = minimize(distance, start, method="Nelder-Mead", options=options)
    return np.asarray(found.x, dtype=np.float64)


def _along(knots: NDArray[np.float64], values: NDArray[np.float64], excess: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate straight pieces: values at four knots, and the slope after them."""
    beyond = values[3] + values[4] * (excess - knots[-1])
    return np.where(excess > knots[-1], beyond, np.interp(excess, knots, values[:4]))


def _weighted_median(*samples: tuple[NDArray[np.float64], int]) -> float:
    """Find the median of the charges of hits, of samples with a weight each."""
    values = np.concatenate([charges for charges, _ in samples])
    weights = np.concatenate([np.full(len(charges), weight / len(charges)) for charges, weight in samples])
    weights[values == 0] = 0
    order = np.argsort(values)
    running = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(running, running[-1] / 2)])


def _set_charges(model: ConvNet, charges: _Charges) -> None:
    for pixel, (place, group) in enumerate(zip(PLACES, GROUPS, strict=True)):
        single = [{place: float(value)} for value in charges.single[1:]]
        growth = Growth(knots=charges.single_knots, shapes=single[:3], slopes=single[3])
        set_growth(model, pixel, growth, is_single=True)
        values = [charges.first, charges.second, *[charges.later()] * (len(group) - 2)]
        other = [
            {where: float(of_pixel[knot]) for where, of_pixel in zip(group, values, strict=True)}
            for knot in range(1, 5)
        ]
        set_growth(model, pixel, Growth(knots=charges.knots, shapes=other[:3], slopes=other[3]), is_single=False)
