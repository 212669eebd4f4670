"""Fits to the Geant4 marginals of the PXD background that the IEA-GAN authors published with their code (MIT licence).

The marginals are of 10,000 events of forty sensors, charges below 7 ADU cut. Their histograms are not in this project.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.sensors import LADDERS_OF_LAYER, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EVENT_SPREAD",
    "SPECTRUM_CHARGES",
    "SPECTRUM_CUMULATIVE",
    "compute_mean_occupancies",
]

SPECTRUM_CHARGES: Final = (
    *(7, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 31, 34, 38, 43, 50, 60, 75, 95, 120, 150, 180, 210, 230, 255, 256),
)
"""Charges in ADU at which the cumulative charge spectrum is known; it is linear between them."""
SPECTRUM_CUMULATIVE: Final = (
    *(0.0, 0.051847, 0.147046, 0.236112, 0.324424, 0.414494, 0.504123, 0.588262, 0.662293),
    *(0.724326, 0.774511, 0.814262, 0.858121, 0.88823, 0.914686, 0.935174, 0.952151, 0.9658),
    *(0.976855, 0.984933, 0.991255, 0.996407, 0.999113, 0.999892, 0.999983, 0.999999, 1.0),
)
"""Share of the hits below each of `SPECTRUM_CHARGES`. Largest deviation from the Geant4 spectrum 0.002, W1 0.07 ADU."""

EVENT_SPREAD: Final = {1: 0.0648, 2: 0.1129}
"""Standard deviation of a sensor's occupancy between events divided by its mean, by layer."""

_HARMONICS: Final = {
    1: (0.3947, 0.0056, 0.1154, -0.0131, -0.0050),
    2: (-0.6750, 0.0525, 0.1310, -0.0043, 0.0184),
}
"""Fit of the mean occupancies in percent, by layer. Residuals are 1.4 % and 1.1 % of a mean."""


def compute_mean_occupancies() -> NDArray[np.float64]:
    """Compute the mean occupancy of each sensor.

    Its logarithm (in percent) is fitted by a constant, a term +1 for sensor 1 and -1 for sensor 2, and the cosine, the
    sine and the cosine of twice the ladder's angle.

    Returns
    -------
    ndarray of float64, shape (40,)
        Share of the pixels with a hit, by sensor index.
    """
    means = np.empty(len(SENSORS))
    for sensor in SENSORS:
        angle = 2 * np.pi * (sensor.ladder - 1) / LADDERS_OF_LAYER[sensor.layer]
        terms = (1.0, 3.0 - 2.0 * sensor.sensor, np.cos(angle), np.sin(angle), np.cos(2 * angle))
        means[sensor.index] = np.exp(np.dot(_HARMONICS[sensor.layer], terms)) / 100
    return means
