"""The simulated background: images of sensors, and events of forty of them.

Occupancies vary from sensor to sensor and from event to event, and the charge spectrum is made right by a monotone map,
all as the public Geant4 marginals have it (`artifacts.standins.marginals`). Nothing else in it is known of the real sample: the
shapes of the clusters come from `artifacts.standins.clusters`, and that half of the spread of a sensor's occupancy is
common to an event is a choice.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from artifacts.standins.clusters import draw_sensor
from artifacts.standins.marginals import (
    EVENT_SPREAD,
    SPECTRUM_CHARGES,
    SPECTRUM_CUMULATIVE,
    mean_occupancies,
)
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["charges_of_hits", "occupancies_of_events", "raw_sensor", "simulated_images"]

_V_PITCH_UM: Final = {1: 57.5, 2: 77.5}
"""Means of the two pitches along a sensor of each layer (55 and 60, 70 and 85)."""
_COMMON_SHARE: Final = 0.5
RAW_THRESHOLD: Final = 6.5
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
    charges = np.zeros((len(occupancies), n_rows, N_V_CELLS), np.uint8)
    seeds = rng.integers(0, 2**32, len(occupancies))
    for image, occupancy, layer, seed in zip(charges, occupancies, layers, seeds, strict=True):
        raw = raw_sensor(float(occupancy), int(layer), int(seed), n_rows)
        hits = raw >= RAW_THRESHOLD
        image[hits] = charges_of_hits(raw[hits])
    return charges


def raw_sensor(occupancy: float, layer: int, seed: int, n_rows: int = N_U_CELLS) -> NDArray[np.float32]:
    """Simulate the charges of a sensor as they are before the map, shape (n_rows, 768); hits have `RAW_THRESHOLD` or more."""
    raw = np.zeros((n_rows, N_V_CELLS), np.float32)
    draw_sensor(raw, round(occupancy * raw.size), _V_PITCH_UM[layer], RAW_THRESHOLD, seed)
    return raw


def charges_of_hits(raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map charges of hits to those of the wanted spectrum, ADU."""
    steps = np.minimum(raw * _STEPS_PER_ADU, _RAW_STEPS - 1).astype(np.int64)
    charges: NDArray[np.uint8] = _charge_table()[steps]
    return charges


@cache
def _charge_table() -> NDArray[np.uint8]:
    knots, charges = _spectrum_map()
    return np.minimum(np.interp(np.arange(_RAW_STEPS) / _STEPS_PER_ADU, knots, charges), 255).astype(np.uint8)


def _spectrum_map() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Charges as simulated, and what they must become for the spectrum to be right."""
    rng = np.random.default_rng(_MAP_SEED)
    n_events = _MAP_IMAGES // N_SENSORS
    layers = np.tile([sensor.layer for sensor in SENSORS], n_events)
    occupancies = occupancies_of_events(n_events, rng).ravel()
    seeds = rng.integers(0, 2**32, len(occupancies))
    sensors = (
        raw_sensor(float(occupancy), int(layer), int(seed))
        for occupancy, layer, seed in zip(occupancies, layers, seeds, strict=True)
    )
    hits = np.concatenate([raw[raw >= RAW_THRESHOLD] for raw in sensors])
    # Quantiles crowd towards the upper end, where the spectrum is steep.
    probabilities = 1 - (1 - np.linspace(0, 1, _MAP_POINTS)) ** 3
    knots = np.quantile(hits.astype(np.float64), probabilities)
    return knots, np.interp(probabilities, SPECTRUM_CUMULATIVE, SPECTRUM_CHARGES)
