"""The level of an image, which sets its occupancy: a piecewise-linear function of latent 0.

A share of the level is added to every feature, so that more or fewer features exceed their thresholds. The function
has a steep step between images that resemble layer 2 and images that resemble layer 1. It is a sum of ReLUs; the step
is 1 - ReLU(1 - 10 ReLU(z - 0.2033)), which stays at exactly 1 when 8 bits round the activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["KNOTS", "LEVEL_SHARE", "N_PIECES", "STEP_GAIN", "Level"]

_STEP_START: Final = 0.2033
"""In the middle of the step, 0.05 above this value, lie 60 % of a normal distribution: 24 sensors of 40."""
KNOTS: Final = (*(float(knot) for knot in np.linspace(-2.4, 2.4, 17)), _STEP_START)
"""Values of latent 0 where a piece begins: 17 changes of slope, then the step."""
N_PIECES: Final = len(KNOTS)
STEP_GAIN: Final = 10.0
"""One over the width of the step."""
LEVEL_SHARE: Final = 0.25
"""Share of the level that is added to every feature, whose variance is 1."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The fitted parameters of the level.

    Attributes
    ----------
    constant : float
        Value below the first knot.
    step : float
        Height of the step.
    slopes : tuple of float
        Change of the slope at each of the first 17 knots.
    """

    constant: float
    step: float
    slopes: tuple[float, ...]
