"""The kernel that finds hits in images of charges, which a GPU computes in milliseconds, in one pass.

99 % of the pixels lie below the smallest charge, so this comparison comes first. It runs over a whole row in vector
registers and writes a mask of one byte per pixel, which stays in the cache. Eight pixels of the mask are a word; words
that are zero are skipped without a branch, because at this occupancy a branch would be mispredicted at nearly every
hit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digitisation.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["find_hits"]

_PIXELS_A_WORD: Final = 8
# The product with a word of one byte set to 1 has the number of that byte in its top three bits.
_BYTE_NUMBER: Final = np.uint64(sum((byte << 5) << (8 * (7 - byte)) for byte in range(8)))
_TOP_BITS: Final = np.uint64(61)
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)


@kernel
def find_hits(
    images: NDArray[np.uint8],
    min_charge: int,
    sensors: NDArray[np.uint16],
    sensor_id: NDArray[np.uint16],
    u_cell: NDArray[np.uint16],
    v_cell: NDArray[np.uint16],
    charge: NDArray[np.uint8],
) -> int:
    """Write the hits of all images, ordered by image, row, column.

    Parameters
    ----------
    images : ndarray of uint8, shape (n, rows, columns)
        Charges in ADU; C-contiguous.
    min_charge : int
        Smallest charge of a hit in ADU.
    sensors : ndarray of uint16, shape (n,)
        VxdID of each image.
    sensor_id, u_cell, v_cell : ndarray of uint16, shape (capacity,)
        Output, from index 0 on. The capacity must be at least the number of pixels.
    charge : ndarray of uint8, shape (capacity,)
        Output likewise. ADU.

    Returns
    -------
    int
        Number of hits.
    """
    n_images, n_rows, n_columns = images.shape
    threshold = np.uint8(min_charge)
    n_words = (n_columns + _PIXELS_A_WORD - 1) // _PIXELS_A_WORD
    mask = np.zeros(n_words * _PIXELS_A_WORD, dtype=np.uint8)
    words = mask.view(np.uint64)
    used_words = np.empty(n_words, dtype=np.int64)
    n_hits = 0
    for image in range(n_images):
        for row in range(n_rows):
            for column in range(n_columns):
                mask[column] = images[image, row, column] >= threshold
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
                    sensor_id[n_hits] = sensors[image]
                    u_cell[n_hits] = row
                    v_cell[n_hits] = column
                    charge[n_hits] = images[image, row, column]
                    n_hits += 1
    return n_hits
