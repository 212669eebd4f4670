"""Levels and quantized weights: errors of half a step at most, no overflow, no saturation, and corrected biases."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import numpy_helper

from export.int8 import OutputRange, calibrate, measure_means, quantize_graph
from export.int8.weights import QuantParams, fit_quant_params, quantize_weights
from tests.compiled_graphs import simplify_graph
from tests.int8_sketches import chain, feeds_of, finish, images_of, latents, lower, residual

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from export.int8 import WeightBits

LARGEST: Final[dict[int, int]] = {7: 64, 8: 127}
HALF_A_STEP: Final = 0.5 * (1 + 1e-5)
"""Scales are float32, so a range ends up to that much beside its last level."""
INT32_MAX: Final = 2**31 - 1
MOST_PRODUCTS: Final = 25 * 512
"""Of a sum in the larger of the two generators."""

ends = st.floats(-1e6, 1e6, width=32)
bits = st.sampled_from((7, 8))


def random_weights(seed: int, n_out: int, spread: float = 1.0) -> NDArray[np.float32]:
    """Make weights of (out, 3, 2, 3), each channel of another size."""
    generator = np.random.default_rng(seed)
    sizes = np.exp(spread * generator.standard_normal((n_out, 1, 1, 1)))
    return (sizes * generator.standard_normal((n_out, 3, 2, 3))).astype(np.float32)


# Levels


@given(low=ends, high=ends, share=st.floats(0, 1))
@example(low=0.0, high=0.0, share=0.0)
@example(low=-3.0, high=-1.0, share=0.0)
@example(low=1.0, high=3.0, share=0.0)
def test_every_value_of_a_range_is_half_a_step_from_a_level_at_most(low: float, high: float, share: float) -> None:
    low, high = sorted((low, high))
    levels = fit_quant_params(low, high)
    value = low + share * (high - low)
    level = np.clip(np.rint(value / levels.scale) + levels.zero_point, 0, 255)
    assert abs(levels.scale * (level - levels.zero_point) - value) <= HALF_A_STEP * levels.scale


@given(low=ends, high=ends)
@example(low=-1.0, high=0.0)
@example(low=0.0, high=1.0)
@example(low=-5.0, high=-4.0)
@example(low=-300 * 2.0**-149, high=0.0)  # the scale is rounded to that of 255 levels of 2^-149
def test_zero_is_a_level(low: float, high: float) -> None:
    levels = fit_quant_params(*sorted((low, high)))
    assert isinstance(levels.zero_point, int)
    assert 0 <= levels.zero_point <= 255
    assert levels.scale > 0


@given(low=ends, high=ends)
@example(low=0.0, high=0.0)
@example(low=0.0, high=1.401298464324817e-45)
def test_the_scale_is_a_float32_and_the_levels_reach_no_further_than_the_range(low: float, high: float) -> None:
    low, high = sorted((low, high))
    levels = fit_quant_params(low, high)
    assert float(np.float32(levels.scale)) == levels.scale
    expected = (max(high, 0.0) - min(low, 0.0)) / 255
    # Where float32 rounds the scale to 0, it is 1.
    assert levels.scale == pytest.approx(expected if np.float32(expected) > 0 else 1.0, rel=1e-6, abs=1e-44)


@given(high=st.floats(2.0**-20, 1e6, width=32))
def test_what_is_never_negative_has_all_levels_from_zero_up(high: float) -> None:
    assert fit_quant_params(0.0, high).zero_point == 0
    assert fit_quant_params(-high, 0.0).zero_point == 255


def test_a_value_that_is_always_zero_has_a_scale_all_the_same() -> None:
    assert fit_quant_params(0.0, 0.0) == QuantParams(scale=1.0, zero_point=0)


# Weights


@given(seed=st.integers(0, 2**32), n_out=st.integers(1, 5), bits=bits)
def test_weights_are_half_a_step_off_at_most(seed: int, n_out: int, bits: WeightBits) -> None:
    weight = random_weights(seed, n_out)
    made = quantize_weights(weight, np.zeros(n_out), 0.1, bits)
    assert [each.dtype.name for each in (made.weight, made.scale, made.bias)] == ["int8", "float32", "int32"]
    assert made.weight.shape == weight.shape
    step = made.scale.astype(np.float64).reshape(-1, 1, 1, 1)
    assert np.all(np.abs(made.weight * step - weight) <= HALF_A_STEP * step)
    assert not made.bias.any()


@given(seed=st.integers(0, 2**32), n_out=st.integers(1, 5), bits=bits)
def test_the_largest_weight_of_each_channel_is_the_largest_integer(seed: int, n_out: int, bits: WeightBits) -> None:
    made = quantize_weights(random_weights(seed, n_out), np.zeros(n_out), 0.1, bits)
    largest = np.abs(made.weight.astype(np.int64)).reshape(n_out, -1).max(axis=1)
    assert np.all(largest == LARGEST[bits])


@given(seed=st.integers(0, 2**32), bits=bits)
def test_weights_are_symmetric(seed: int, bits: WeightBits) -> None:
    weight = random_weights(seed, 3)
    bias = np.random.default_rng(seed).standard_normal(3)
    there, back = (quantize_weights(sign * weight, sign * bias, 0.1, bits) for sign in (1, -1))
    assert np.array_equal(there.weight, -back.weight)
    assert np.array_equal(there.bias, -back.bias)
    assert np.array_equal(there.scale, back.scale)


def test_two_products_of_seven_bits_fit_into_sixteen() -> None:
    made = quantize_weights(np.array([1.0, -1.0], np.float32).reshape(2, 1, 1, 1), np.zeros(2), 0.1, 7)
    assert made.weight.ravel().tolist() == [64, -64]
    assert 2 * 255 * 64 < 2**15 <= 2 * 255 * 127


@given(seed=st.integers(0, 2**32), input_scale=st.floats(1e-4, 10), bits=bits)
def test_a_bias_is_half_a_step_off_at_most(seed: int, input_scale: float, bits: WeightBits) -> None:
    bias = 5 * np.random.default_rng(seed).standard_normal(4)
    made = quantize_weights(random_weights(seed, 4), bias, input_scale, bits)
    step = input_scale * made.scale.astype(np.float64)
    assert np.all(np.abs(made.bias * step - bias) <= HALF_A_STEP * step)


def test_a_channel_of_zeros_stays_one() -> None:
    weight = random_weights(1, 3)
    weight[1] = 0
    made = quantize_weights(weight, np.zeros(3), 0.1, 7)
    assert not made.weight[1].any()
    assert made.weight[[0, 2]].any(axis=(1, 2, 3)).all()
    assert made.scale[1] == 1.0


@pytest.mark.parametrize("bias", [1e-3, -7.5, 1e20])
def test_a_channel_of_zeros_keeps_its_bias(bias: float) -> None:
    made = quantize_weights(np.zeros((1, 3, 2, 3), np.float32), np.array([bias]), 0.25, 8)
    assert not made.weight.any()
    assert made.bias[0] * made.scale.astype(np.float64)[0] * 0.25 == pytest.approx(bias, rel=1e-6)


@given(
    seed=st.integers(0, 2**32),
    bias=st.floats(1, 1e20) | st.floats(-1e20, -1),
    input_scale=st.floats(1e-6, 1),
    bits=bits,
)
@example(seed=0, bias=1e20, input_scale=1e-6, bits=7)
def test_a_huge_bias_overflows_neither_by_itself_nor_with_the_products(
    seed: int, bias: float, input_scale: float, bits: WeightBits
) -> None:
    made = quantize_weights(random_weights(seed, 2), np.array([bias, 0.0]), input_scale, bits)
    products = 255 * LARGEST[bits] * MOST_PRODUCTS
    assert abs(int(made.bias[0])) + products <= INT32_MAX
    scale = made.scale.astype(np.float64)
    assert abs(made.bias[0] * scale[0] * input_scale - bias) <= HALF_A_STEP * scale[0] * input_scale
    step = scale.reshape(-1, 1, 1, 1)
    assert np.all(np.abs(made.weight * step - random_weights(seed, 2)) <= HALF_A_STEP * step)
    assert np.abs(made.weight[1].astype(np.int64)).max() == LARGEST[bits], "the other channel has its own scale"


@given(seed=st.integers(0, 2**32), bits=bits)
def test_a_bias_takes_off_what_rounding_the_weights_adds_on_average(seed: int, bits: WeightBits) -> None:
    weight, random = random_weights(seed, 4), np.random.default_rng(seed)
    bias, means = random.standard_normal(4), 3 * random.random(3)
    made = quantize_weights(weight, bias, 0.01, bits, means)
    scale = made.scale.astype(np.float64)
    expected = weight.astype(np.float64).sum(axis=(2, 3)) @ means + bias
    found = (made.weight * scale.reshape(-1, 1, 1, 1)).sum(axis=(2, 3)) @ means + made.bias * scale * 0.01
    assert np.abs(found - expected).max() <= HALF_A_STEP * scale.max() * 0.01
    assert np.array_equal(made.weight, quantize_weights(weight, bias, 0.01, bits).weight)


@given(seed=st.integers(0, 2**32), bits=bits)
def test_no_means_are_means_of_zero(seed: int, bits: WeightBits) -> None:
    weight = random_weights(seed, 2)
    plain = quantize_weights(weight, np.array([0.5, -2.0]), 0.1, bits)
    assert np.array_equal(plain.bias, quantize_weights(weight, np.array([0.5, -2.0]), 0.1, bits, np.zeros(3)).bias)


# Bias correction in whole graphs


def mean_errors(model: onnx.ModelProto, *, are_corrected: bool) -> float:
    """Measure the error of the mean image, in steps of 255 over the range of the images."""
    inputs = latents(1, 40)
    exact = images_of(model, inputs)
    output_range = OutputRange(low=float(exact.min()), high=float(exact.max()))
    means = measure_means(model, feeds_of(inputs)) if are_corrected else None
    found = images_of(quantize_graph(model, calibrate(model, feeds_of(inputs)), output_range, 7, means), inputs)
    return float(abs((found - exact).mean()) * 255 / (output_range.high - output_range.low))


@pytest.mark.parametrize("kind", ["chain", "residual"])
@pytest.mark.slow
def test_images_are_right_on_average(kind: str) -> None:
    models = [
        finish(chain(seed, (24, 20, 8), (3, 3, 3)) if kind == "chain" else residual(seed, (24, 8), 3))
        for seed in range(12)
    ]
    without, corrected = (
        np.mean([mean_errors(model, are_corrected=are_corrected) for model in models])
        for are_corrected in (False, True)
    )
    assert corrected < 0.7 * without


# Sums in 16 bits


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
