"""Weights of a convolution that computes, or takes, a block of pixels at once, each pixel as channels of its own.

A convolution of stride 1 that keeps the size of its image, after a nearest upsampling by u (1: none), computes the
output row o = B i + r of block i as a sum over its taps a of weight[a] times input row

    floor((B i + r - pad + a) / u) = (B / u) i + floor((r - pad + a) / u).

So for fixed r it is a convolution of stride B / u of the small image, whose taps are sums of the original ones: those
a with the same input row. Rows beyond the edge are zeros in both forms. The same holds for columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["BlockWeights", "build_block_weights", "split_by_phases"]


@dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """A convolution of blocks of pixels.

    Attributes
    ----------
    weight : ndarray of float32, shape (rows * columns * out, in, height, width)
        Output channels ordered by row, column and channel.
    pads : tuple of int
        Top, left, bottom, right.
    strides : tuple of int
    """

    weight: NDArray[np.float32]
    pads: tuple[int, int, int, int]
    strides: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Input offsets of the taps of each wanted output position, along one axis."""

    taps: tuple[tuple[int, ...], ...]
    size: int
    stride: int
    pad_before: int
    pad_after: int


def build_block_weights(
    weight: NDArray[np.float32],
    pads: tuple[int, int, int, int],
    *,
    upsampling: int,
    block: tuple[int, int],
    rows: Sequence[int],
    columns: Sequence[int],
) -> BlockWeights:
    """Build the weights that compute some pixels of each block of the output as channels.

    Parameters
    ----------
    weight : ndarray of float32, shape (out, in, height, width)
    pads : tuple of int
        Top, left, bottom, right; the output must be as large as the (upsampled) image.
    upsampling : int
        Factor of the nearest upsampling before the convolution; 1 for none.
    block : tuple of int
        Height and width of a block of output pixels, multiples of `upsampling`.
    rows, columns : sequence of int
        Wanted rows and columns of a block; negative ones are of the block before.

    Returns
    -------
    BlockWeights
        Summed in float64 and rounded once.
    """
    top, left, bottom, right = pads
    n_out, n_in, height, width = weight.shape
    if (top + bottom, left + right) != (height - 1, width - 1):
        message = f"a kernel of {height} x {width} with pads {pads} does not keep the size"
        raise ValueError(message)
    vertical = _place_taps(height, top, upsampling, block[0], rows)
    horizontal = _place_taps(width, left, upsampling, block[1], columns)
    summed = np.zeros((len(rows), len(columns), n_out, n_in, vertical.size, horizontal.size))
    for row, row_taps in enumerate(vertical.taps):
        for column, column_taps in enumerate(horizontal.taps):
            for a, tap_row in enumerate(row_taps):
                for b, tap_column in enumerate(column_taps):
                    summed[row, column, :, :, tap_row, tap_column] += weight[:, :, a, b]
    return BlockWeights(
        weight=summed.reshape(-1, n_in, vertical.size, horizontal.size).astype(np.float32),
        pads=(vertical.pad_before, horizontal.pad_before, vertical.pad_after, horizontal.pad_after),
        strides=(vertical.stride, horizontal.stride),
    )


def split_by_phases(convolution: BlockWeights) -> BlockWeights:
    """Build the weights of a convolution that takes the 2 x 2 phases of its image as channels.

    With an even stride S it reads the rows S i - pad + a for its taps a: row floor((a - pad) / 2) + (S / 2) i of the
    phase (a - pad) mod 2.

    Parameters
    ----------
    convolution : BlockWeights
        Of the whole image: even strides, an output smaller than its input by just these.

    Returns
    -------
    BlockWeights
        Input channels ordered by row, column and channel; half the strides.
    """
    weight, (top, left, _, _), (stride_y, stride_x) = convolution.weight, convolution.pads, convolution.strides
    n_out, n_in, height, width = weight.shape
    vertical, horizontal = _place_phases(height, top, stride_y), _place_phases(width, left, stride_x)
    split = np.zeros((n_out, 2, 2, n_in, vertical.size, horizontal.size), dtype=weight.dtype)
    for a, (tap_row,) in enumerate(vertical.taps):
        for b, (tap_column,) in enumerate(horizontal.taps):
            split[:, (a - top) % 2, (b - left) % 2, :, tap_row, tap_column] = weight[:, :, a, b]
    return BlockWeights(
        weight=split.reshape(n_out, 4 * n_in, vertical.size, horizontal.size),
        pads=(vertical.pad_before, horizontal.pad_before, vertical.pad_after, horizontal.pad_after),
        strides=(vertical.stride, horizontal.stride),
    )


def _place_phases(n_taps: int, pad: int, stride: int) -> _Axis:
    return _cover([[(tap - pad) // 2] for tap in range(n_taps)], stride // 2)


def _place_taps(n_taps: int, pad: int, upsampling: int, block: int, wanted: Sequence[int]) -> _Axis:
    if block % upsampling or not wanted or not all(-block < each < block for each in wanted):
        message = f"positions {list(wanted)} of a block of {block} after an upsampling by {upsampling}"
        raise ValueError(message)
    stride = block // upsampling
    return _cover([[(each - pad + tap) // upsampling for tap in range(n_taps)] for each in wanted], stride)


def _cover(offsets: Sequence[Sequence[int]], stride: int) -> _Axis:
    """Place a kernel of some stride over all offsets."""
    # Pads cannot be negative, so the kernel covers at least the block itself, with zeros where it has no taps.
    first = min(0, *(min(each) for each in offsets))
    last = max(stride - 1, *(max(each) for each in offsets))
    return _Axis(
        taps=tuple(tuple(offset - first for offset in each) for each in offsets),
        size=last - first + 1,
        stride=stride,
        pad_before=-first,
        pad_after=last - (stride - 1),
    )
