"""Fit the level: the occupancies of the images shall be distributed as those of the sensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.stats import norm

from artifacts.standins.level import LEVEL_KNOTS, STEP_FROM, STEP_GAIN, Level
from artifacts.standins.simulation import occupancies_of_events
from pxdbg_runtime.sensors import SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Response", "fit_level", "measure_response", "rescaled"]

_LEVELS: Final = np.linspace(-2.5, 2.5, 9)
_EVENTS: Final = 5_000
_SEED: Final = 99
_LAYER_2_SHARE: Final = 0.6
"""24 sensors of 40."""
_LEAST_SHARE: Final = 0.1
"""Of the wanted variance that the level must make, should the generator's own be too large."""
_MARGIN: Final = 0.0005
_LATENTS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Response:
    """What images have at some levels: their mean occupancy, and its spread from image to image over its mean."""

    levels: NDArray[np.float64]
    occupancies: NDArray[np.float64]
    spreads: NDArray[np.float64]


def measure_response(occupancies_at: Callable[[float], NDArray[np.float64]]) -> Response:
    """Measure it, with a function that gives the occupancies of images at a level."""
    found = [occupancies_at(float(level)) for level in _LEVELS]
    means = np.array([occupancies.mean() for occupancies in found])
    spreads = np.array([occupancies.std(ddof=1) for occupancies in found]) / means
    return Response(levels=_LEVELS, occupancies=means, spreads=spreads)


def rescaled(response: Response, levels: NDArray[np.float64], occupancies: NDArray[np.float64]) -> Response:
    """Make a response of few images right on average by that of more images, each at a level of its own."""
    return replace(
        response, occupancies=response.occupancies * occupancies.mean() / _occupancies_at(response, levels).mean()
    )


def fit_level(response: Response) -> Level:
    """Find the level whose images have the wanted occupancies: like layer 2 below the step, like layer 1 above it."""
    wanted = occupancies_of_events(_EVENTS, np.random.default_rng(_SEED))
    first = _fitted_level(response, wanted)
    latents = norm.ppf((np.arange(_LATENTS) + 0.5) / _LATENTS)
    # A curve of few pieces misses the mean by a little.
    return _fitted_level(response, wanted * wanted.mean() / _occupancies_at(response, first(latents)).mean())


def _occupancies_at(response: Response, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.exp(np.interp(levels, response.levels, np.log(response.occupancies))))


def _fitted_level(response: Response, wanted: NDArray[np.float64]) -> Level:
    layers = np.array([sensor.layer for sensor in SENSORS])
    lower = _LayerFit(np.log(wanted[:, layers == 2].ravel()), response, 0.0, _LAYER_2_SHARE)
    upper = _LayerFit(np.log(wanted[:, layers == 1].ravel()), response, _LAYER_2_SHARE, 1.0)
    knots = np.asarray(LEVEL_KNOTS)
    ends = (STEP_FROM, STEP_FROM + 1 / STEP_GAIN)
    step = float(upper.levels(np.array([ends[1]]))[0] - lower.levels(np.array([ends[0]]))[0])
    values = np.where(knots < np.mean(ends), lower.levels(knots), upper.levels(knots) - step)
    return Level.through(values, step)


@dataclass(frozen=True)
class _LayerFit:
    """Levels for images of one layer, to which a range of the first latent's cumulative distribution belongs."""

    wanted: NDArray[np.float64]
    response: Response
    start: float
    stop: float

    def levels(self, latents: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the levels at values of the first latent, shape (n,)."""
        share = (norm.cdf(latents) - self.start) / (self.stop - self.start)
        quantiles = np.quantile(self.wanted, np.clip(share, _MARGIN, 1 - _MARGIN))
        mean, variance = self.wanted.mean(), self.wanted.var()
        # What images spread at one level comes to what the level spreads.
        spread = np.interp(np.exp(mean), self.response.occupancies, self.response.spreads)
        narrowed = np.sqrt(max(variance - spread**2, _LEAST_SHARE * variance) / variance)
        targets = mean - spread**2 / 2 + (quantiles - mean) * narrowed
        return np.asarray(np.interp(targets, np.log(self.response.occupancies), self.response.levels))
