"""The level of an image: what sets how many hits it has.

One latent is kept for it. A function of that latent, the same in every cell, is added to all features, so that more or
fewer of them exceed their thresholds. It is piecewise linear, with a step between the images that are like layer 2 and
those that are like layer 1: made of two ReLUs, so that it stays exact where activations are rounded to 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVEL_KNOTS", "LEVEL_SHARE", "N_PIECES", "STEP_FROM", "STEP_GAIN", "Level"]

LEVEL_KNOTS: Final = tuple(float(knot) for knot in np.linspace(-2.4, 2.4, 17))
"""Values of the first latent at which the level's slope may change."""
STEP_FROM: Final = 0.2033
"""Of the first latent; in the middle of the step, 0.05 above it, lie 60 % of a normal distribution: 24 sensors of 40."""
STEP_GAIN: Final = 10.0
"""One over the width of the step."""
N_PIECES: Final = len(LEVEL_KNOTS) + 1
"""Pieces that the level is made of: one a knot, and the step."""
LEVEL_SHARE: Final = 0.25
"""How much of the level is added to every feature, whose variance is 1."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The level of an image: a function of its first latent.

    Attributes
    ----------
    constant : float
        Below the first of `LEVEL_KNOTS`.
    slopes : tuple of float
        By how much the slope changes at each of them.
    step : float
        Height of the step.
    """

    constant: float
    slopes: tuple[float, ...]
    step: float

    @classmethod
    def through(cls, values: NDArray[np.float64], step: float = 0.0) -> Level:
        """Make the level that has given values at the knots, to which the step comes."""
        slopes = np.diff(values) / np.diff(LEVEL_KNOTS)
        changes = np.diff(np.concatenate([[0.0], slopes, [0.0]]))
        return cls(constant=float(values[0]), slopes=tuple(float(change) for change in changes), step=step)

    def __call__(self, latent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate it."""
        above = np.maximum(np.asarray(latent)[..., None] - np.asarray(LEVEL_KNOTS), 0.0)
        risen = np.minimum(STEP_GAIN * np.maximum(np.asarray(latent) - STEP_FROM, 0.0), 1.0)
        return np.asarray(self.constant + above @ np.asarray(self.slopes) + self.step * risen)
