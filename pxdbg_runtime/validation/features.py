"""Features of single images: what a classifier and nearest neighbours compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from pxdbg_runtime.digitisation.clusters import ROWS_PER_IMAGE, number_clusters
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_SENSORS, N_U_CELLS, N_V_CELLS, PIXELS_PER_SENSOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "FEATURES",
    "Clusters",
    "ImageFeatures",
    "compute_features",
    "describe_clusters",
    "divide",
    "standardise_by_sensor",
]

_CHARGE_QUANTILES: Final = (0.25, 0.5, 0.75, 0.95)
_LARGE_CLUSTER: Final = 6
"""Hits."""
_TILE_CELLS: Final = 32
_TILES_ALONG_V: Final = -(-N_V_CELLS // _TILE_CELLS)
_TILES: Final = -(-N_U_CELLS // _TILE_CELLS) * _TILES_ALONG_V

FEATURES: Final = (
    "occupancy (%)",
    "mean charge (ADU)",
    "spread of charges (ADU)",
    *(f"charge: {100 * quantile:g} % quantile (ADU)" for quantile in _CHARGE_QUANTILES),
    "clusters",
    "mean cluster size (hits)",
    "spread of cluster sizes (hits)",
    "largest cluster (hits)",
    "share of single pixels",
    "share of pairs",
    f"share of clusters of {_LARGE_CLUSTER} hits or more",
    "mean cluster charge (ADU)",
    "spread of cluster charges (ADU)",
    "mean charge of single pixels (ADU)",
    "mean cluster extent in u (cells)",
    "mean cluster extent in v (cells)",
    "mean u of hits (cells)",
    "spread in u of hits (cells)",
    "mean v of hits (cells)",
    "spread in v of hits (cells)",
    "unevenness of hits over tiles",
)
"""Names of the features, with their units. A spread is the standard deviation within an image, a share is one of the
clusters, and the unevenness is the variance over the mean of the hits in tiles of 32 x 32 cells."""


class ImageFeatures(NamedTuple):
    """Features of the images of a sample.

    `event_numbers` is an ndarray of int64, shape (events,); `values` one of float32, shape (events, 40, features).
    """

    event_numbers: NDArray[np.int64]
    values: NDArray[np.float32]


class Clusters(NamedTuple):
    """The 8-connected clusters of an event's forty images, arrays of shape (clusters,).

    `sensors` are indices, `sizes` numbers of hits, `charges` sums in ADU, `u_extents` and `v_extents` cells.
    """

    sensors: NDArray[np.int64]
    sizes: NDArray[np.int64]
    charges: NDArray[np.int64]
    u_extents: NDArray[np.int64]
    v_extents: NDArray[np.int64]


def describe_clusters(
    sensor: NDArray[np.int64], u_cell: NDArray[np.int64], v_cell: NDArray[np.int64], charge: NDArray[np.uint8]
) -> Clusters:
    """Find the clusters of an event.

    Parameters
    ----------
    sensor, u_cell, v_cell : ndarray of int64, shape (hits,)
        Sensor index and cells of the hits, without duplicates, ordered by sensor, u, v.
    charge : ndarray of uint8, shape (hits,)
        ADU.
    """
    number = np.empty(len(sensor), dtype=np.int64)
    n_clusters = number_clusters(sensor * ROWS_PER_IMAGE + u_cell, v_cell, number)
    low, high = np.full((2, n_clusters), N_V_CELLS), np.full((2, n_clusters), -1)
    for axis, cell in enumerate((u_cell, v_cell)):
        np.minimum.at(low[axis], number, cell)
        np.maximum.at(high[axis], number, cell)
    sensors = np.empty(n_clusters, dtype=np.int64)
    sensors[number] = sensor
    u_extents, v_extents = high - low + 1
    return Clusters(
        sensors=sensors,
        sizes=np.bincount(number, minlength=n_clusters),
        charges=np.bincount(number, weights=charge, minlength=n_clusters).astype(np.int64),  # exact in float64
        u_extents=u_extents,
        v_extents=v_extents,
    )


def compute_features(
    sensor: NDArray[np.int64],
    u_cell: NDArray[np.int64],
    v_cell: NDArray[np.int64],
    charge: NDArray[np.uint8],
    clusters: Clusters,
) -> NDArray[np.float32]:
    """Compute the features of an event's forty images.

    Parameters
    ----------
    sensor, u_cell, v_cell, charge
        As of `describe_clusters`.
    clusters : Clusters
        Of these hits.

    Returns
    -------
    ndarray of float32, shape (40, features)
        NaN for what an image without a hit, or without a single pixel, does not have.
    """
    n_hits = np.bincount(sensor, minlength=N_SENSORS)
    tile = sensor * _TILES + u_cell // _TILE_CELLS * _TILES_ALONG_V + v_cell // _TILE_CELLS
    tiles = np.bincount(tile, minlength=N_SENSORS * _TILES).reshape(N_SENSORS, _TILES)
    is_single = clusters.sizes == 1
    columns = [
        100 * n_hits / PIXELS_PER_SENSOR,
        *_average(sensor, charge),
        *_find_quantiles(sensor, charge, n_hits),
        np.bincount(clusters.sensors, minlength=N_SENSORS),
        *_average(clusters.sensors, clusters.sizes),
        _find_largest(clusters),
        _average(clusters.sensors, is_single)[0],
        _average(clusters.sensors, clusters.sizes == 2)[0],
        _average(clusters.sensors, clusters.sizes >= _LARGE_CLUSTER)[0],
        *_average(clusters.sensors, clusters.charges),
        _average(clusters.sensors[is_single], clusters.charges[is_single])[0],
        _average(clusters.sensors, clusters.u_extents)[0],
        _average(clusters.sensors, clusters.v_extents)[0],
        *_average(sensor, u_cell),
        *_average(sensor, v_cell),
        divide(tiles.var(axis=1), tiles.mean(axis=1)),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def standardise_by_sensor(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Subtract the mean of each feature on each sensor, and divide by its standard deviation there.

    Mean and standard deviation are those of both samples together, whose events count alike: with those of one sample
    alone, its own images would be nearer to 0 than those of an equal sample.

    Parameters
    ----------
    ours, theirs : ndarray of float32, shape (events, 40, features)

    Returns
    -------
    two ndarrays of float32, shapes as of the arguments
        NaN stays NaN. A feature that is constant on a sensor becomes 0.
    """
    both = np.concatenate([ours, theirs])
    known = ~np.isnan(both)
    n_known = known.sum(axis=0)
    mean = divide(np.where(known, both, 0).sum(axis=0, dtype=np.float64), n_known)
    deviations = both - mean
    spread = np.sqrt(divide(np.where(known, deviations**2, 0).sum(axis=0), n_known))
    # The spread of a constant is not exactly 0 after the rounding to float32.
    is_constant = ~(spread > 1e-6 * np.abs(mean))
    standardised = np.where(is_constant & known, 0, deviations / np.where(is_constant, 1, spread)).astype(np.float32)
    return standardised[: len(ours)], standardised[len(ours) :]


def _average(sensor: NDArray[np.int64], values: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute mean and standard deviation of the values of each sensor; NaN for a sensor without one."""
    n_values = np.bincount(sensor, minlength=N_SENSORS)
    mean = divide(np.bincount(sensor, weights=values, minlength=N_SENSORS), n_values)
    squares = np.bincount(sensor, weights=(values - mean[sensor]) ** 2, minlength=N_SENSORS)
    return mean, np.sqrt(divide(squares, n_values))


def _find_quantiles(
    sensor: NDArray[np.int64], charge: NDArray[np.uint8], n_hits: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Find the smallest charge of each sensor that the wanted share of its hits does not exceed."""
    n_charges = MAX_CHARGE_ADU + 1
    counts = np.bincount(sensor * n_charges + charge, minlength=N_SENSORS * n_charges).reshape(N_SENSORS, n_charges)
    running = np.cumsum(counts, axis=1)
    found = [(running < share * n_hits[:, None]).sum(axis=1) for share in _CHARGE_QUANTILES]
    return [np.where(n_hits > 0, charges, np.nan) for charges in found]


def _find_largest(clusters: Clusters) -> NDArray[np.float64]:
    largest = np.full(N_SENSORS, np.nan)
    np.fmax.at(largest, clusters.sensors, clusters.sizes.astype(np.float64))
    return largest


def divide(dividend: NDArray[Any], divisor: NDArray[Any]) -> NDArray[np.float64]:
    """Divide; NaN where the divisor is 0."""
    return np.asarray(np.divide(dividend, divisor, out=np.full(divisor.shape, np.nan), where=divisor != 0))
