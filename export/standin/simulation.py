"""The simulated background: images of sensors, and events of forty of them.

Occupancies vary from sensor to sensor and from event to event, and the charge spectrum is made right by a monotone map,
all as the public Geant4 marginals have it (`export.standin.marginals`). Nothing else in it is known of the real sample: the
shapes of the clusters come from `export.standin.clusters`, and that half of the spread of a sensor's occupancy is
common to an event is a choice.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from export.standin.clusters import draw_sensor
from export.standin.marginals import (
    EVENT_SPREAD,
    SPECTRUM_CHARGES,
    SPECTRUM_CUMULATIVE,
    mean_occupancies,
)
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["occupancies_of_events", "simulated_images"]

_V_PITCH_UM: Final = {1: 57.5, 2: 77.5}
"""Means of the two pitches along a sensor of each layer (55 and 60, 70 and 85)."""
_COMMON_SHARE: Final = 0.5
_RAW_THRESHOLD: Final = 6.5
"""ADU before the map."""
_STEPS_PER_ADU: Final = 64
_RAW_STEPS: Final = 1024 * _STEPS_PER_ADU
_MAP_SEED: Final = 20240115
_MAP_IMAGES: Final = 400
_MAP_POINTS: Final = 400


def occupancies_of_events(n_events: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the occupancies of the sensors.

    Returns
    -------
    ndarray of float64, shape (n_events, 40)
        Log-normal around `mean_occupancies`.
    """
    spread = np.array([EVENT_SPREAD[sensor.layer] for sensor in SENSORS])
    sigma = np.sqrt(np.log1p(spread**2))
    common = rng.standard_normal((n_events, 1)) * np.sqrt(_COMMON_SHARE)
    own = rng.standard_normal((n_events, N_SENSORS)) * np.sqrt(1 - _COMMON_SHARE)
    factors: NDArray[np.float64] = np.exp(sigma * (common + own) - sigma**2 / 2)
    return mean_occupancies() * factors


def simulated_images(
    occupancies: NDArray[np.float64],
    layers: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    n_rows: int = N_U_CELLS,
) -> NDArray[np.uint8]:
    """Simulate images of sensors.

    Parameters
    ----------
    occupancies : ndarray of float64, shape (n,)
        Share of the pixels with a hit.
    layers : ndarray of int64, shape (n,)
        1 or 2.
    rng : numpy Generator
    n_rows : int
        Of an image. Generators are trained on more rows than they keep.

    Returns
    -------
    ndarray of uint8, shape (n, n_rows, 768)
        ADU; none from 1 to 6.
    """
    raw = _raw_images(occupancies, layers, rng, n_rows)
    knots, charges = _spectrum_map()
    table = np.interp(np.arange(_RAW_STEPS) / _STEPS_PER_ADU, knots, charges)
    table[: int(np.ceil(_RAW_THRESHOLD * _STEPS_PER_ADU))] = 0
    steps = np.clip(raw * _STEPS_PER_ADU, 0, _RAW_STEPS - 1).astype(np.int64)
    return np.minimum(table, 255).astype(np.uint8)[steps]


def _raw_images(
    occupancies: NDArray[np.float64], layers: NDArray[np.int64], rng: np.random.Generator, n_rows: int
) -> NDArray[np.float32]:
    raw = np.zeros((len(occupancies), n_rows, N_V_CELLS), np.float32)
    seeds = rng.integers(0, 2**32, len(occupancies))
    for image, occupancy, layer, seed in zip(raw, occupancies, layers, seeds, strict=True):
        draw_sensor(image, round(occupancy * image.size), _V_PITCH_UM[int(layer)], _RAW_THRESHOLD, int(seed))
    return raw


@cache
def _spectrum_map() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Charges as simulated, and what they must become for the spectrum to be right."""
    rng = np.random.default_rng(_MAP_SEED)
    n_events = _MAP_IMAGES // N_SENSORS
    layers = np.tile([sensor.layer for sensor in SENSORS], n_events)
    raw = _raw_images(occupancies_of_events(n_events, rng).ravel(), layers, rng, N_U_CELLS)
    hits = raw[raw >= _RAW_THRESHOLD]
    # Quantiles crowd towards the upper end, where the spectrum is steep.
    probabilities = 1 - (1 - np.linspace(0, 1, _MAP_POINTS)) ** 3
    knots = np.quantile(hits.astype(np.float64), probabilities)
    return knots, np.interp(probabilities, SPECTRUM_CUMULATIVE, SPECTRUM_CHARGES)
