"""Patterns that come again: whole images, tiles of images, and pixels that fire too often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digitisation.jit import kernel
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, PIXELS_PER_SENSOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COMPARED_IMAGES",
    "MIN_TILE_HITS",
    "TILE_CELLS",
    "PixelSpread",
    "RepeatFinder",
    "Repeats",
    "expected_busiest",
    "pixel_spread",
]

COMPARED_IMAGES: Final = 1000
"""Images whose tiles are compared, the first of a sample."""
TILE_CELLS: Final = 16
"""Cells along each side of a tile; the last tiles along u are cut off by the sensor's end."""
MIN_TILE_HITS: Final = 6
"""Tiles with fewer hits are not compared: they are alike by chance."""
_TILES_ALONG_U: Final = -(-N_U_CELLS // TILE_CELLS)
_TILES_ALONG_V: Final = -(-N_V_CELLS // TILE_CELLS)
# SplitMix64 (Steele, Lea and Flood, 2014).
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR: Final = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """What came again.

    Attributes
    ----------
    images : int
        With a hit, all of the sample.
    repeated_images : int
        Images that equal an earlier one, hits and charges, on whatever sensor.
    compared_images : int
        Images whose tiles and pixels were compared.
    compared_tiles : int
        Tiles of 16 x 16 cells with six hits or more in them.
    equal_tiles : int
        Pairs of such tiles, at the same place of two images, that have the same hits with the same charges.
    equal_tile_cells : int
        Likewise with the same hits, whatever their charges.
    compared_hits : int
        In the compared images.
    busiest_pixel : int
        Of the compared images, those in which the pixel that fires most often fires.
    """

    images: int
    repeated_images: int
    compared_images: int
    compared_tiles: int
    equal_tiles: int
    equal_tile_cells: int
    compared_hits: int
    busiest_pixel: int

    @property
    def is_free(self) -> bool:
        """Whether neither an image nor a tile with its charges came again."""
        return self.repeated_images == 0 and self.equal_tiles == 0


@dataclass(frozen=True, kw_only=True)
class PixelSpread:
    """How unevenly the pixels of a sensor fire, all sensors laid upon each other.

    Attributes
    ----------
    variance_ratio : float
        Variance over pixels of their counts of hits, divided by the mean: 1 where all pixels are alike.
    excess_percent : float
        Spread of the pixels' rates that is left when Poisson noise is taken off, relative to the mean rate.
    """

    variance_ratio: float
    excess_percent: float


class RepeatFinder:
    """Takes the hits of one event after the other, and finds what came again."""

    def __init__(self) -> None:
        none = np.empty(0, dtype=np.uint64)
        self._image_hashes: list[NDArray[np.uint64]] = [none]
        self._tile_hashes: list[NDArray[np.uint64]] = [none]
        self._cell_hashes: list[NDArray[np.uint64]] = [none]
        self._fired = np.zeros(PIXELS_PER_SENSOR, dtype=np.int64)
        self._compared_images = 0

    def add(
        self,
        sensor: NDArray[np.int64],
        u_cell: NDArray[np.int64],
        v_cell: NDArray[np.int64],
        charge: NDArray[np.uint8],
    ) -> None:
        """Take the hits of an event's forty images; `sensor` is the index, 0 to 39."""
        if not len(sensor):
            # Files may tell of very many events without a hit.
            self._compared_images += N_SENSORS if self._compared_images < COMPARED_IMAGES else 0
            return
        shape = (N_SENSORS, _TILES_ALONG_U * _TILES_ALONG_V)
        tiles, cells = np.zeros((2, *shape), dtype=np.uint64)
        hits = np.zeros(shape, dtype=np.int64)
        hash_tiles(sensor, u_cell, v_cell, charge, tiles, cells, hits)
        self._image_hashes.append(tiles.sum(axis=1)[hits.any(axis=1)])
        if self._compared_images < COMPARED_IMAGES:
            self._compared_images += N_SENSORS
            compared = hits >= MIN_TILE_HITS
            self._tile_hashes.append(tiles[compared])
            self._cell_hashes.append(cells[compared])
            self._fired += np.bincount(u_cell * N_V_CELLS + v_cell, minlength=PIXELS_PER_SENSOR)

    def found(self) -> Repeats:
        """Find what came again among all that was taken."""
        images = np.concatenate(self._image_hashes)
        tiles = np.concatenate(self._tile_hashes)
        return Repeats(
            images=len(images),
            repeated_images=len(images) - len(np.unique(images)),
            compared_images=self._compared_images,
            compared_tiles=len(tiles),
            equal_tiles=_equal_pairs(tiles),
            equal_tile_cells=_equal_pairs(np.concatenate(self._cell_hashes)),
            compared_hits=int(self._fired.sum()),
            busiest_pixel=int(self._fired.max()),
        )


def pixel_spread(fired: NDArray[np.int64]) -> PixelSpread:
    """Compare the counts of pixels with Poisson's law.

    An event's occupancy is the same for all its pixels, so its swings do not widen the spread over pixels; what does
    is structure that stays from event to event, such as a profile along v, seams, or noisy pixels.

    Parameters
    ----------
    fired : ndarray of int64
        How often each pixel fired; not all zero.
    """
    mean, variance = float(fired.mean()), float(fired.var(ddof=1))
    excess = max(variance - mean, 0.0)
    return PixelSpread(variance_ratio=variance / mean, excess_percent=100 * float(np.sqrt(excess)) / mean)


def expected_busiest(mean: float, pixels: int) -> float:
    """Expect the largest of independent Poisson counts with one mean: the sum over k of 1 - P(count <= k) ** pixels.

    Raises
    ------
    MissingPackageError
        If scipy is not installed.
    """
    require("scipy.stats", extra="validate", purpose="A validation")
    from scipy.stats import poisson

    counts = np.arange(int(mean + 20 * np.sqrt(mean)) + 60)
    return float((1 - np.exp(pixels * poisson.logcdf(counts, mean))).sum())


@kernel
def hash_tiles(
    sensor: NDArray[np.int64],
    u_cell: NDArray[np.int64],
    v_cell: NDArray[np.int64],
    charge: NDArray[np.uint8],
    tiles: NDArray[np.uint64],
    cells: NDArray[np.uint64],
    hits: NDArray[np.int64],
) -> None:
    """Add up, tile by tile, a hash of each hit.

    Sums do not depend on the order of the hits; a hit's place on the sensor is part of its hash, so tiles at different
    places differ.

    Parameters
    ----------
    sensor, u_cell, v_cell : ndarray of int64, shape (n,)
        The sensor's index.
    charge : ndarray of uint8, shape (n,)
        ADU.
    tiles, cells : ndarray of uint64, shape (40, tiles)
        The hashes with the charges and without them are added to these.
    hits : ndarray of int64, shape (40, tiles)
        The hits are counted here.
    """
    for hit in range(len(sensor)):
        tile = u_cell[hit] // TILE_CELLS * _TILES_ALONG_V + v_cell[hit] // TILE_CELLS
        place = np.uint64((u_cell[hit] * N_V_CELLS + v_cell[hit]) * 256)
        tiles[sensor[hit], tile] += _mixed(place + np.uint64(charge[hit]))
        cells[sensor[hit], tile] += _mixed(place)
        hits[sensor[hit], tile] += 1


@kernel
def _mixed(value: np.uint64) -> np.uint64:
    """Make 64 bits of which each depends on all bits of the value."""
    value = (value + np.uint64(1)) * _STEP
    value = (value ^ (value >> np.uint64(30))) * _FIRST_FACTOR
    value = (value ^ (value >> np.uint64(27))) * _SECOND_FACTOR
    return value ^ (value >> np.uint64(31))


def _equal_pairs(hashes: NDArray[np.uint64]) -> int:
    _values, counts = np.unique(hashes, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())
