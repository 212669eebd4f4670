"""Repeated images, repeated tiles of images, and pixels that fire too often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

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
    "expect_busiest",
    "measure_pixel_spread",
]

COMPARED_IMAGES: Final = 1000
"""Number of images, the first of a sample, whose tiles are compared."""
TILE_CELLS: Final = 16
"""Cells along each side of a tile; the last tiles along u are smaller."""
MIN_TILE_HITS: Final = 6
"""Tiles with fewer hits are not compared: they are equal by chance."""
_TILES_ALONG_V: Final = -(-N_V_CELLS // TILE_CELLS)
_TILES_PER_SENSOR: Final = -(-N_U_CELLS // TILE_CELLS) * _TILES_ALONG_V


@dataclass(frozen=True, kw_only=True)
class Repeats:
    """Repetitions in a sample.

    Attributes
    ----------
    images : int
        Images that have a hit.
    repeated_images : int
        Images that equal an earlier one in hits and charges, on whatever sensor.
    compared_images : int
        Images whose tiles and pixels were compared.
    compared_tiles : int
        Tiles of 16 x 16 cells with six hits or more in them.
    equal_tiles : int
        Pairs of such tiles, at the same place of two images, that have the same hits with the same charges.
    equal_tile_cells : int
        Such pairs that have the same hits, whatever their charges.
    compared_hits : int
        In the compared images.
    busiest_pixel : int
        Number of compared images in which the pixel that fires most often fires.
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
        """Whether no image and no tile with its charges is repeated."""
        return self.repeated_images == 0 and self.equal_tiles == 0


@dataclass(frozen=True, kw_only=True)
class PixelSpread:
    """How unevenly the pixels of a sensor fire, summed over all sensors.

    Attributes
    ----------
    variance_ratio : float
        Variance over pixels of their counts of hits, divided by the mean: 1 where all pixels have the same rate.
    excess_percent : float
        Spread of the pixels' rates without Poisson noise, relative to the mean rate.
    """

    variance_ratio: float
    excess_percent: float


class RepeatFinder:
    """Hashes the images and tiles of one event after the other, and finds equal ones."""

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
        """Add the hits of an event's forty images; `sensor` is the index, 0 to 39."""
        is_compared = self._compared_images < COMPARED_IMAGES
        self._compared_images += N_SENSORS if is_compared else 0
        if not len(sensor):
            return  # metadata may claim very many events without a hit
        pixel = u_cell * N_V_CELLS + v_cell
        tile = sensor * _TILES_PER_SENSOR + u_cell // TILE_CELLS * _TILES_ALONG_V + v_cell // TILE_CELLS
        hits = np.bincount(tile, minlength=N_SENSORS * _TILES_PER_SENSOR)
        tile_hashes = _sum_hashes(pixel * 256 + charge, tile)
        has_hits = hits.reshape(N_SENSORS, -1).any(axis=1)
        self._image_hashes.append(tile_hashes.reshape(N_SENSORS, -1).sum(axis=1)[has_hits])
        if is_compared:
            self._tile_hashes.append(tile_hashes[hits >= MIN_TILE_HITS])
            self._cell_hashes.append(_sum_hashes(pixel * 256, tile)[hits >= MIN_TILE_HITS])
            self._fired += np.bincount(pixel, minlength=PIXELS_PER_SENSOR)

    def find_repeats(self) -> Repeats:
        """Find the repetitions in all events that were added."""
        images = np.concatenate(self._image_hashes)
        tiles = np.concatenate(self._tile_hashes)
        return Repeats(
            images=len(images),
            repeated_images=len(images) - len(np.unique(images)),
            compared_images=self._compared_images,
            compared_tiles=len(tiles),
            equal_tiles=_count_equal_pairs(tiles),
            equal_tile_cells=_count_equal_pairs(np.concatenate(self._cell_hashes)),
            compared_hits=int(self._fired.sum()),
            busiest_pixel=int(self._fired.max()),
        )


def _sum_hashes(values: NDArray[np.int64], tile: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hash values and sum the hashes tile by tile: the sums do not depend on the order of the values.

    The hash is SplitMix64 (Steele, Lea and Flood, 2014).
    """
    mixed = (values.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    sums = np.zeros(N_SENSORS * _TILES_PER_SENSOR, dtype=np.uint64)
    np.add.at(sums, tile, mixed ^ (mixed >> np.uint64(31)))
    return sums


def _count_equal_pairs(hashes: NDArray[np.uint64]) -> int:
    _values, counts = np.unique(hashes, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def measure_pixel_spread(fired: NDArray[np.int64]) -> PixelSpread:
    """Compare the counts of pixels with Poisson's law.

    An event's occupancy is the same for all its pixels, so its fluctuation does not widen the spread over pixels.
    Structure that persists from event to event does: a profile along v, seams, or noisy pixels.

    Parameters
    ----------
    fired : ndarray of int64
        How often each pixel fired; not all zero.
    """
    mean, variance = float(fired.mean()), float(fired.var(ddof=1))
    excess = max(variance - mean, 0.0)
    return PixelSpread(variance_ratio=variance / mean, excess_percent=100 * float(np.sqrt(excess)) / mean)


def expect_busiest(mean: float, pixels: int) -> float:
    """Compute the expected maximum of independent Poisson counts with one mean.

    It is the sum over k of 1 - P(count <= k) ** pixels.

    Raises
    ------
    MissingPackageError
        If scipy is not installed.
    """
    special = require("scipy.special", extra="validate", purpose="A validation")
    counts = np.arange(int(mean + 20 * np.sqrt(mean)) + 60)
    return float((1 - special.pdtr(counts, mean) ** pixels).sum())
