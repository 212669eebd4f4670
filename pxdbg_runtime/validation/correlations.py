"""Correlation of the sensors of an event: whether their occupancies rise and fall together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MIN_EVENTS_TO_CORRELATE", "Correlation", "correlate_sensors", "measure_correlation"]

MIN_EVENTS_TO_CORRELATE: Final = 10
"""With fewer events the error of one coefficient is above 0.3."""
_JACKKNIFE_GROUPS: Final = 50
"""The error then has an uncertainty of a tenth."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Mean over all pairs of sensors of Pearson's coefficient, and its standard error."""

    mean: float
    error: float


def correlate_sensors(hits: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Correlate the occupancies of sensors over events.

    Parameters
    ----------
    hits : ndarray of int64, shape (events, sensors)
        Hits of each image.

    Returns
    -------
    ndarray of float64, shape (sensors, sensors), or None
        Pearson's coefficients, NaN for a sensor with constant occupancy; None for fewer than ten events.
    """
    return _correlate(hits) if len(hits) >= MIN_EVENTS_TO_CORRELATE else None


def measure_correlation(hits: NDArray[np.int64]) -> Correlation | None:
    """Average the coefficients of all pairs of sensors.

    The error is from a jackknife: the mean is computed again without each of up to fifty groups of events.

    Parameters
    ----------
    hits : ndarray of int64, shape (events, sensors)
        Hits of each image.

    Returns
    -------
    Correlation or None
        None for fewer than ten events, or if too few occupancies vary.
    """
    n_groups = min(len(hits), _JACKKNIFE_GROUPS)
    if n_groups < MIN_EVENTS_TO_CORRELATE:
        return None
    group = np.arange(len(hits)) % n_groups
    without = np.array([_average_pairs(hits[group != number]) for number in range(n_groups)])
    if np.isnan(without).any():
        return None
    return Correlation(mean=_average_pairs(hits), error=float(np.sqrt((n_groups - 1) * without.var())))


def _average_pairs(hits: NDArray[np.int64]) -> float:
    """Average the coefficients of different sensors; NaN if none is known."""
    of_pairs = _correlate(hits)[~np.eye(hits.shape[1], dtype=bool)]
    known = of_pairs[~np.isnan(of_pairs)]
    return float(known.mean()) if len(known) else float("nan")


def _correlate(hits: NDArray[np.int64]) -> NDArray[np.float64]:
    centred = hits - hits.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    norm[norm == 0] = np.nan
    return np.asarray(centred.T @ centred / np.outer(norm, norm))
