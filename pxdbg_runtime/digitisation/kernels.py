"""Kernels that compute hits and charges from images of tanh values or of charges, in one pass.

99 % of the pixels lie below the first threshold, so this comparison comes first. It runs over a whole row in vector
registers and writes a mask of one byte per pixel, which stays in the cache. Eight pixels of the mask are a word;
words that are zero are skipped without a branch, because at this occupancy a branch would be mispredicted at nearly
every hit. The charge of a hit is the number of thresholds up to its value, found by bisection without a branch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digitisation.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = NDArray[np.float32] | NDArray[np.uint8]
    Value = np.float32 | np.uint8

__all__ = ["compute_charge", "fill_charges", "find_hits"]

_PIXELS_A_WORD: Final = 8
# The product with a word of one byte set to 1 has the number of that byte in its top three bits.
_BYTE_NUMBER: Final = np.uint64(sum((byte << 5) << (8 * (7 - byte)) for byte in range(8)))
_TOP_BITS: Final = np.uint64(61)
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)


@kernel
def compute_charge(value: Value, table: Images) -> int:
    """Compute the charge of a value: the number of thresholds that are not greater.

    Parameters
    ----------
    value : float32 or uint8
    table : ndarray of the same dtype, shape (255,)
        Ascending, see `ModelCard.compute_charge_table`; 1 to 255 for values that are charges.

    Returns
    -------
    int
        Charge in ADU, 0 to 255.
    """
    charge = 0
    for step in (128, 64, 32, 16, 8, 4, 2, 1):
        charge += step * int(table[charge + step - 1] <= value)
    return charge


@kernel
def find_hits(
    images: Images,
    threshold: Value,
    table: Images,
    limits: Images,
    sensors: NDArray[np.uint16],
    sensor_id: NDArray[np.uint16],
    u_cell: NDArray[np.uint16],
    v_cell: NDArray[np.uint16],
    charge: NDArray[np.uint8],
) -> int:
    """Write the hits of all images, ordered by image, row, column.

    Parameters
    ----------
    images : ndarray of float32 or uint8, shape (n, rows, columns)
        C-contiguous.
    threshold : float32 or uint8
        Smallest value of a hit.
    table : ndarray of the same dtype, shape (255,)
        See `compute_charge`.
    limits : ndarray of the same dtype, shape (2,)
        Smallest and largest valid value.
    sensors : ndarray of uint16, shape (n,)
        VxdID of each image.
    sensor_id, u_cell, v_cell : ndarray of uint16, shape (capacity,)
        Output, from index 0 on. The capacity must be at least the number of pixels.
    charge : ndarray of uint8, shape (capacity,)
        Output likewise. ADU.

    Returns
    -------
    int
        Number of hits; -1 if a value is NaN or outside the limits. The output is invalid then.
    """
    n_images, n_rows, n_columns = images.shape
    n_words = (n_columns + _PIXELS_A_WORD - 1) // _PIXELS_A_WORD
    mask = np.zeros(n_words * _PIXELS_A_WORD, dtype=np.uint8)
    words = mask.view(np.uint64)
    used_words = np.empty(n_words, dtype=np.int64)
    smallest, largest = limits[0], limits[1]
    n_hits = 0
    for image in range(n_images):
        for row in range(n_rows):
            for column in range(n_columns):
                value = images[image, row, column]
                # Invalid values such as NaN enter the mask like hits and are refused below.
                mask[column] = not ((value < threshold) & (value >= smallest))
            n_used = 0
            for word in range(n_words):
                used_words[n_used] = word
                n_used += int(words[word] != _ZERO)
            for used in range(n_used):
                word = used_words[used]
                left = words[word]
                while left != _ZERO:
                    lowest = left & (~left + _ONE)
                    left ^= lowest
                    column = word * _PIXELS_A_WORD + np.int64((lowest * _BYTE_NUMBER) >> _TOP_BITS)
                    value = images[image, row, column]
                    if not smallest <= value <= largest:
                        return -1
                    sensor_id[n_hits] = sensors[image]
                    u_cell[n_hits] = row
                    v_cell[n_hits] = column
                    charge[n_hits] = compute_charge(value, table)
                    n_hits += 1
    return n_hits


@kernel
def fill_charges(images: Images, threshold: Value, table: Images, limits: Images, charges: NDArray[np.uint8]) -> bool:
    """Write the charge of every pixel.

    Parameters
    ----------
    images : ndarray of float32 or uint8, shape (n, rows, columns)
        C-contiguous.
    threshold : float32 or uint8
        Smallest value of a hit; below it the charge is 0.
    table : ndarray of the same dtype, shape (255,)
        See `compute_charge`.
    limits : ndarray of the same dtype, shape (2,)
        Smallest and largest valid value.
    charges : ndarray of uint8, shape (n, rows, columns)
        Output. ADU.

    Returns
    -------
    bool
        False if a value is NaN or outside the limits. The output is invalid then.
    """
    smallest, largest = limits[0], limits[1]
    for image in range(images.shape[0]):
        for row in range(images.shape[1]):
            n_too_small = 0  # counted first, in vector registers; the loop below has branches
            for column in range(images.shape[2]):
                n_too_small += images[image, row, column] < smallest
            if n_too_small:
                return False
            for column in range(images.shape[2]):
                value = images[image, row, column]
                if value < threshold:
                    charges[image, row, column] = 0
                    continue
                if not value <= largest:
                    return False
                charges[image, row, column] = compute_charge(value, table)
    return True
