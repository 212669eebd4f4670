"""From images of tanh values to digits and charges: two passes, count and fill.

99 % of the pixels lie below the first threshold, so that comparison comes before anything else; the charge of
a hit is the number of thresholds that are not greater than it, found by bisection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.compilation import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["charge_of", "count_hits", "fill_charges", "fill_hits"]


@kernel
def charge_of(value: np.float32, table: NDArray[np.float32]) -> int:
    """Count the thresholds that are not greater than a value.

    Parameters
    ----------
    value : float32
    table : ndarray of float32, shape (255,)
        Ascending, see `ModelCard.charge_table`.

    Returns
    -------
    int
        Charge in ADU, 0 to 255.
    """
    low, high = 0, len(table)
    while low < high:
        middle = (low + high) >> 1
        if table[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def count_hits(images: NDArray[np.float32], threshold: np.float32, counts: NDArray[np.int64]) -> None:
    """Count the pixels of each image that are hits, or not a number.

    Parameters
    ----------
    images : ndarray of float32, shape (n, rows, columns)
        C-contiguous.
    threshold : float32
        Smallest value of a hit.
    counts : ndarray of int64, shape (n,)
        Overwritten. NaN counts as a hit, so that `fill_hits` comes upon it.
    """
    for image in range(images.shape[0]):
        n_hits = 0
        for row in range(images.shape[1]):
            # A 32-bit sum of one row lets the compiler use vectors of floats throughout.
            n_in_row = np.int32(0)
            for column in range(images.shape[2]):
                n_in_row += np.int32(not images[image, row, column] < threshold)
            n_hits += int(n_in_row)
        counts[image] = n_hits


@kernel
def fill_hits(
    images: NDArray[np.float32],
    threshold: np.float32,
    table: NDArray[np.float32],
    image_of_hit: NDArray[np.uint16],
    u_cell: NDArray[np.uint16],
    v_cell: NDArray[np.uint16],
    charge: NDArray[np.uint8],
) -> bool:
    """Write the hits of all images, ordered by image, row, column.

    Parameters
    ----------
    images : ndarray of float32, shape (n, rows, columns)
        C-contiguous.
    threshold : float32
        Smallest value of a hit, as `count_hits` was given.
    table : ndarray of float32, shape (255,)
    image_of_hit, u_cell, v_cell : ndarray of uint16, shape (hits,)
        Overwritten. As long as `count_hits` found hits.
    charge : ndarray of uint8, shape (hits,)
        Overwritten. ADU.

    Returns
    -------
    bool
        False if a value is not a number; what was written is then of no use.
    """
    place = 0
    for image in range(images.shape[0]):
        for row in range(images.shape[1]):
            for column in range(images.shape[2]):
                value = images[image, row, column]
                if value < threshold:
                    continue
                if np.isnan(value):
                    return False
                image_of_hit[place] = image
                u_cell[place] = row
                v_cell[place] = column
                charge[place] = charge_of(value, table)
                place += 1
    return True


@kernel
def fill_charges(
    images: NDArray[np.float32],
    threshold: np.float32,
    table: NDArray[np.float32],
    charges: NDArray[np.uint8],
) -> bool:
    """Write the charge of every pixel.

    Parameters
    ----------
    images : ndarray of float32, shape (n, rows, columns)
        C-contiguous.
    threshold : float32
        Smallest value of a hit; below it the charge is 0.
    table : ndarray of float32, shape (255,)
    charges : ndarray of uint8, shape (n, rows, columns)
        Overwritten. ADU.

    Returns
    -------
    bool
        False if a value is not a number; what was written is then of no use.
    """
    for image in range(images.shape[0]):
        for row in range(images.shape[1]):
            for column in range(images.shape[2]):
                value = images[image, row, column]
                if value < threshold:
                    charges[image, row, column] = 0
                    continue
                if np.isnan(value):
                    return False
                charges[image, row, column] = charge_of(value, table)
    return True
