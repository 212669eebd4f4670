"""Sums of sixteen bits: weights of 7 bits never saturate them, so that every CPU gives the same integers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.graph import simplify_graph
from tests.int8_sketches import chain, finish, lower, residual

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.int8 import WeightBits


def pair_sums(pixels: NDArray[np.uint8], weights: NDArray[np.int8], *, is_saturating: bool) -> NDArray[np.int64]:
    """Multiply (m, k) by (k, n), two products at a time in 16 bits that saturate: as CPUs without VNNI do."""
    wide, deep = (
        np.pad(each.astype(np.int64), pad) for each, pad in ((pixels, ((0, 0), (0, 1))), (weights, ((0, 1), (0, 0))))
    )
    n_pairs = wide.shape[1] // 2
    pairs = sum(wide[:, part : 2 * n_pairs : 2, None] * deep[None, part : 2 * n_pairs : 2] for part in (0, 1))
    assert isinstance(pairs, np.ndarray)
    limited = np.clip(pairs, -(2**15), 2**15 - 1) if is_saturating else pairs
    summed: NDArray[np.int64] = limited.sum(axis=1)
    return summed


def matrices_of(model: onnx.ModelProto) -> list[NDArray[np.int8]]:
    """Give the weights of all convolutions of integers, each as (in, out)."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [constants[node.input[3]] for node in model.graph.node if node.op_type == "QLinearConv"]
    return [weight.reshape(len(weight), -1).T for weight in weights]


@pytest.mark.parametrize("seed", range(3))
def test_seven_bits_never_saturate(seed: int) -> None:
    matrices = matrices_of(lower(simplify_graph(finish(residual(seed, (5, 18), 3)))).integers)
    assert len(matrices) > 4
    generator = np.random.default_rng(seed)
    for matrix, order in itertools.product(matrices, range(3)):
        # The worst there could be: bright where the weights of a channel are positive, or negative.
        worst = np.concatenate([255 * (matrix.T > 0), 255 * (matrix.T < 0)]).astype(np.uint8)
        some = generator.integers(0, 256, (4, len(matrix)), dtype=np.uint8)
        pixels = np.concatenate([worst, some])
        rows = generator.permutation(len(matrix)) if order else np.arange(len(matrix))
        plain, saturating = (pair_sums(pixels[:, rows], matrix[rows], is_saturating=each) for each in (False, True))
        assert np.array_equal(plain, saturating)
        assert np.array_equal(plain, pixels.astype(np.int64) @ matrix.astype(np.int64))


def test_eight_bits_do_saturate_somewhere() -> None:
    matrices = matrices_of(lower(simplify_graph(finish(residual(0, (5, 18), 3))), bits=8).integers)
    saturated = []
    for matrix in matrices:
        bright = np.full((1, len(matrix)), 255, np.uint8)
        plain, saturating = (pair_sums(bright, matrix, is_saturating=each) for each in (False, True))
        saturated.append(not np.array_equal(plain, saturating))
    assert any(saturated)


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_weights_keep_to_their_bits(bits: WeightBits, largest: int) -> None:
    matrices = matrices_of(lower(simplify_graph(finish(chain(1, (3, 17, 5), (3, 3, 3)))), bits).integers)
    assert {int(np.abs(matrix.astype(np.int64)).max()) for matrix in matrices} == {largest}
