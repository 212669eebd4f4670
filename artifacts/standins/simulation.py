"""Simulate single sensors: occupancies and charge spectrum follow the public Geant4 marginals.

The shapes of the clusters come from `clusters`; a monotone map of the charges then gives the spectrum of the marginals.
That half of the variance of a sensor's occupancy is common to an event is an assumption.
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
    compute_mean_occupancies,
)
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RAW_THRESHOLD", "build_charge_table", "draw_occupancies", "map_charges", "simulate_raw_charges"]

_V_PITCH_UM: Final = {1: 57.5, 2: 77.5}
"""Means of the two pitches along a sensor of each layer (55 and 60, 70 and 85)."""
_COMMON_SHARE: Final = 0.5
RAW_THRESHOLD: Final = 6.5
"""Smallest raw charge of a hit, ADU."""
_STEPS_PER_ADU: Final = 64
_N_STEPS: Final = 1024 * _STEPS_PER_ADU
_MAP_SEED: Final = 20240115
_MAP_EVENTS: Final = 10
_MAP_POINTS: Final = 400


def draw_occupancies(n_events: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the occupancies of the sensors from log-normal distributions around `compute_mean_occupancies`.

    Returns
    -------
    ndarray of float64, shape (n_events, 40)
        Share of the pixels with a hit.
    """
    spread = np.array([EVENT_SPREAD[sensor.layer] for sensor in SENSORS])
    sigma = np.sqrt(np.log1p(spread**2))
    common = rng.standard_normal((n_events, 1)) * np.sqrt(_COMMON_SHARE)
    own = rng.standard_normal((n_events, N_SENSORS)) * np.sqrt(1 - _COMMON_SHARE)
    factors: NDArray[np.float64] = np.exp(sigma * (common + own) - sigma**2 / 2)
    return compute_mean_occupancies() * factors


def simulate_raw_charges(occupancy: float, layer: int, seed: int) -> NDArray[np.float32]:
    """Simulate a sensor.

    Parameters
    ----------
    occupancy : float
        Share of the pixels with a hit.
    layer : {1, 2}
    seed : int
        0 to 2^32 - 1.

    Returns
    -------
    ndarray of float32, shape (250, 768)
        Charges before `map_charges`, ADU. Hits have `RAW_THRESHOLD` or more.
    """
    raw = np.zeros((N_U_CELLS, N_V_CELLS), np.float32)
    draw_sensor(raw, round(occupancy * raw.size), _V_PITCH_UM[layer], RAW_THRESHOLD, seed)
    return raw


def map_charges(raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Map the raw charges of hits to charges with the spectrum of the marginals, ADU."""
    steps = np.minimum(raw * _STEPS_PER_ADU, _N_STEPS - 1).astype(np.int64)
    charges: NDArray[np.uint8] = build_charge_table()[steps]
    return charges


@cache
def build_charge_table() -> NDArray[np.uint8]:
    """Match quantiles: each raw charge gets the charge of the marginals with the same cumulative share.

    Returns
    -------
    ndarray of uint8
        Charge in ADU, by raw charge in 64ths of an ADU.
    """
    rng = np.random.default_rng(_MAP_SEED)
    layers = [sensor.layer for sensor in SENSORS] * _MAP_EVENTS
    occupancies = draw_occupancies(_MAP_EVENTS, rng).ravel().tolist()
    seeds = rng.integers(0, 2**32, len(occupancies)).tolist()
    sensors = map(simulate_raw_charges, occupancies, layers, seeds)
    hits = np.concatenate([raw[raw >= RAW_THRESHOLD] for raw in sensors])
    # Quantiles are denser towards the upper end, where the spectrum is steep.
    shares = 1 - (1 - np.linspace(0, 1, _MAP_POINTS)) ** 3
    knots = np.quantile(hits.astype(np.float64), shares)
    charges = np.interp(shares, SPECTRUM_CUMULATIVE, SPECTRUM_CHARGES)
    return np.minimum(np.interp(np.arange(_N_STEPS) / _STEPS_PER_ADU, knots, charges), 255).astype(np.uint8)
