"""From images of tanh values, or of charges, to hits and charges, in one pass over the images.

99 % of the pixels lie below the first threshold, so that comparison comes before anything else. It is made for a whole row,
in vector registers, into a mask of one byte a pixel that stays in the cache; eight pixels of it are a word, and words that
are zero are passed over without a branch: at this occupancy a branch would be mispredicted at nearly every hit.
The charge of a hit is the number of thresholds that are not greater than it, found by bisection, again without a branch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digitisation.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Images = NDArray[np.float32] | NDArray[np.uint8]
    Value = np.float32 | np.uint8

__all__ = ["charge_of", "fill_charges", "find_hits"]

_PIXELS_A_WORD: Final = 8
# In a word with one byte set to 1, the product's top three bits are the number of that byte.
_BYTE_NUMBER: Final = np.uint64(sum((byte << 5) << (8 * (7 - byte)) for byte in range(8)))
_TOP_BITS: Final = np.uint64(61)
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)


@kernel
def charge_of(value: Value, table: Images) -> int:
    """Count the thresholds that are not greater than a value.

    Parameters
    ----------
    value : float32 or uint8
    table : ndarray of the same dtype, shape (255,)
        Ascending, see `ModelCard.compute_charge_table`; for values that are charges already, 1 to 255.

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
        See `charge_of`.
    limits : ndarray of the same dtype, shape (2,)
        Smallest and largest value that an image can hold.
    sensors : ndarray of uint16, shape (n,)
        VxdID of each image.
    sensor_id, u_cell, v_cell : ndarray of uint16, shape (places,)
        Overwritten from the first place on. There must be places for all pixels.
    charge : ndarray of uint8, shape (places,)
        Overwritten likewise. ADU.

    Returns
    -------
    int
        Number of hits; -1 if a value is not a number or outside the limits, and what was written is then of no use.
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
                # What is no sound value, a NaN for one, is found like a hit, and refused below.
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
                    charge[n_hits] = charge_of(value, table)
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
        See `charge_of`.
    limits : ndarray of the same dtype, shape (2,)
        Smallest and largest value that an image can hold.
    charges : ndarray of uint8, shape (n, rows, columns)
        Overwritten. ADU.

    Returns
    -------
    bool
        False if a value is not a number or outside the limits; what was written is then of no use.
    """
    smallest, largest = limits[0], limits[1]
    for image in range(images.shape[0]):
        for row in range(images.shape[1]):
            n_too_small = 0  # counted first, in vector registers, which the branches below have no use for
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
                charges[image, row, column] = charge_of(value, table)
    return True
