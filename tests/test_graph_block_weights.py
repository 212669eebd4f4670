"""Convolutions that compute blocks of pixels, against the convolution that they replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from export.graph.block_weights import build_block_weights
from tests.small_graphs import BATCHES, CHANNELS, SEEDS, assert_close, draw_pads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tests.small_graphs import Pads

ANY_KERNELS: Final = st.tuples(st.integers(1, 7), st.integers(1, 7))
SHAPES_AND_PADS: Final = ANY_KERNELS.flatmap(lambda kernel: st.tuples(st.just(kernel), draw_pads(kernel)))
BLOCK_COUNTS: Final = st.tuples(st.integers(1, 3), st.integers(1, 3))
"""Number of blocks along height and width."""


@st.composite
def blocks(draw: st.DrawFn, upsampling: int) -> tuple[int, list[int]]:
    """Draw the side of a block, and some of its positions in any order."""
    side = upsampling * draw(st.integers(1, 4))
    return side, draw(st.lists(st.integers(0, side - 1), min_size=1, unique=True))


def convolve(
    images: NDArray[np.float64], weight: NDArray[np.floating], pads: Pads, strides: tuple[int, int] = (1, 1)
) -> NDArray[np.float64]:
    """Convolve in float64."""
    top, left, bottom, right = pads
    padded = torch.nn.functional.pad(torch.from_numpy(images), (left, right, top, bottom))
    result: NDArray[np.float64] = torch.nn.functional.conv2d(
        padded, torch.from_numpy(weight.astype(np.float64)), stride=strides
    ).numpy()
    return result


def pixels_of(
    images: NDArray[np.float64], block: tuple[int, int], rows: Sequence[int], columns: Sequence[int]
) -> NDArray[np.float64]:
    """Take pixels of each block as channels, ordered by row, column and channel."""
    parts = [images[:, :, row :: block[0], column :: block[1]] for row in rows for column in columns]
    return np.concatenate(parts, axis=1)


@given(
    data=st.data(), kernel_and_pads=SHAPES_AND_PADS, upsampling=st.sampled_from([1, 2]), seed=SEEDS, n_in=CHANNELS,
    n_out=CHANNELS, batch=BATCHES, counts=BLOCK_COUNTS, whole=st.booleans(),
)  # fmt: skip
def test_they_give_the_pixels_of_the_whole_convolution(
    data: st.DataObject,
    kernel_and_pads: tuple[tuple[int, int], Pads],
    upsampling: int,
    seed: int,
    n_in: int,
    n_out: int,
    batch: int,
    counts: tuple[int, int],
    whole: bool,
) -> None:
    kernel, pads = kernel_and_pads
    (height, rows), (width, columns) = data.draw(blocks(upsampling)), data.draw(blocks(upsampling))
    random = np.random.default_rng(seed)
    shape = (n_out, n_in, *kernel)
    weight = (random.integers(-3, 4, shape) if whole else random.normal(size=shape)).astype(np.float32)
    small = random.integers(
        -3, 4, (batch, n_in, counts[0] * height // upsampling, counts[1] * width // upsampling)
    ).astype(np.float64)
    made = build_block_weights(weight, pads, upsampling=upsampling, block=(height, width), rows=rows, columns=columns)
    large = small.repeat(upsampling, axis=2).repeat(upsampling, axis=3)
    expected = pixels_of(convolve(large, weight, pads), (height, width), rows, columns)
    assert made.weight.dtype == np.float32
    assert min(made.pads) >= 0
    # Whole numbers are exact; sums of others are rounded to float32.
    assert_close(convolve(small, made.weight, made.pads, made.strides), expected, 0 if whole else 1e-5)


@given(seed=SEEDS, kernel_and_pads=SHAPES_AND_PADS)
def test_blocks_of_one_pixel_are_the_convolution_itself(
    seed: int, kernel_and_pads: tuple[tuple[int, int], Pads]
) -> None:
    kernel, pads = kernel_and_pads
    weight = np.random.default_rng(seed).normal(size=(2, 3, *kernel)).astype(np.float32)
    made = build_block_weights(weight, pads, upsampling=1, block=(1, 1), rows=[0], columns=[0])
    assert np.array_equal(made.weight, weight)
    assert (made.pads, made.strides) == (pads, (1, 1))


def test_the_taps_that_fall_on_one_pixel_are_summed_in_float64() -> None:
    # The first and the last cancel; in float32 the small one between them would be lost.
    weight = np.array([1e9, 1.0, -1e9], np.float32).reshape(1, 1, 1, 3)
    made = build_block_weights(weight, (0, 2, 0, 0), upsampling=4, block=(4, 4), rows=[0], columns=[3])
    assert made.weight.sum() == 1.0


def test_a_doubled_image_needs_two_by_two_taps_for_each_phase_of_three_by_three() -> None:
    weight = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    made = build_block_weights(weight, (1, 1, 1, 1), upsampling=2, block=(2, 2), rows=[0], columns=[1])
    assert made.weight.tolist() == [[[[1 + 2, 3], [4 + 7 + 5 + 8, 6 + 9]]]]
    assert (made.pads, made.strides) == ((1, 0, 0, 1), (1, 1))


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 0), (2, 2, 2, 2), (1, 0, 1, 1), (0, 1, 1, 1)])
def test_pads_that_change_the_size_are_refused(pads: Pads) -> None:
    with pytest.raises(ValueError, match=r"^a kernel of 3 x 3 with pads \(.*\) does not keep the size$"):
        build_block_weights(np.ones((1, 1, 3, 3), np.float32), pads, upsampling=1, block=(1, 1), rows=[0], columns=[0])


@pytest.mark.parametrize(
    ("upsampling", "block", "rows", "columns", "says"),
    [
        (2, (3, 2), [0], [0], r"positions \[0\] of a block of 3 after an upsampling by 2"),
        (2, (2, 1), [0], [0], r"positions \[0\] of a block of 1 after an upsampling by 2"),
        (1, (2, 2), [], [0], r"positions \[\] of a block of 2 after an upsampling by 1"),
        (1, (2, 2), [0], [], r"positions \[\] of a block of 2"),
        (1, (2, 4), [2], [3], r"positions \[2\] of a block of 2"),
        (1, (2, 4), [1], [0, -4], r"positions \[0, -4\] of a block of 4"),
    ],
)
def test_positions_that_no_block_has_are_refused(
    upsampling: int, block: tuple[int, int], rows: list[int], columns: list[int], says: str
) -> None:
    weight = np.ones((1, 1, 3, 3), np.float32)
    with pytest.raises(ValueError, match=says):
        build_block_weights(weight, (1, 1, 1, 1), upsampling=upsampling, block=block, rows=rows, columns=columns)
