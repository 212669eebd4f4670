"""The last layer of int8 graphs: 1021 levels over its range, each the nearest to float32's value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from export.int8 import OutputRange, calibrate, quantize_graph
from tests.int8_sketches import N_LATENTS, Sketch, feeds_of, images_of, latents
from tests.test_int8_operators import check_plain_integers

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_LEVELS: Final = 1021
ROUNDING: Final = 1e-3
"""In levels: the bias is rounded to an integer, and the sum to float32."""


def grid_shifts(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Find the shift of each pixel's levels, in levels, by its position in a block of 2 x 4."""
    block = np.array([[0, 5, 3, 6], [7, 2, 4, 1]]) / 8
    height, width = shape[-2:]
    return np.broadcast_to(np.tile(block, (height // len(block), width // block.shape[1])), shape)


class Sample:
    """One convolution to one channel, of an image of 8-bit levels, in float32 and in integers."""

    def __init__(
        self,
        seed: int,
        *,
        n_in: int,
        size: int,
        upsampling: int,
        width: float = 1.0,
        weight: NDArray[np.float32] | None = None,
    ) -> None:
        sketch = Sketch(seed)
        image = sketch.relu(sketch.linear(n_in, 4 // upsampling, 16 // upsampling))
        made = sketch.random.standard_normal((1, n_in, size, size)) if weight is None else weight
        self.weight = made.astype(np.float32)
        inputs = [sketch.constant(self.weight), sketch.constant(sketch.random.standard_normal(1).astype(np.float32))]
        source = sketch.upsample(image) if upsampling == 2 else image
        output = sketch.node("Conv", [source, *inputs], kernel_shape=[size, size], pads=[size // 2] * 4)
        self.exact = sketch.model(output)
        exact_values = images_of(self.exact, latents(seed))
        middle, extent = float(np.median(exact_values)), width * float(np.ptp(exact_values))
        self.output_range = OutputRange(low=middle - extent, high=middle + extent)
        ranges = calibrate(self.exact, feeds_of(latents(seed)))
        self.integers = quantize_graph(self.exact, ranges, self.output_range)
        values = check_plain_integers(self.integers, {"latent": latents(seed)})
        self.found = values[output].astype(np.float64)
        self.image, self.image_scale = self._dequantise(f"{output}.segments", values)
        self.upsampling = upsampling
        # Two segments instead of four for an image of many channels.
        is_coarse = upsampling == 1 and n_in > 16
        self.n_levels, self.step = (511, 2 * self.output_range.step) if is_coarse else (1021, self.output_range.step)
        self.shifts = grid_shifts(self.found.shape)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.integers.graph.initializer}
        self.weight_step = float(constants[f"{output}.segments.weight_scale"].max())
        self.bias = float(numpy_helper.to_array(sketch.constants[-1 if upsampling == 1 else -2])[0])

    @property
    def rounding(self) -> float:
        """`ROUNDING`, and what the last bit of a float32 value is of a step, which may be small."""
        return ROUNDING + float(np.spacing(np.float32(np.abs(self.found).max()))) / self.step

    @property
    def levels(self) -> NDArray[np.float64]:
        """The images in levels of each pixel."""
        return (self.found - self.output_range.low) / self.step + self.shifts

    def clip_values(self, exact: NDArray[np.float64]) -> NDArray[np.float64]:
        """Clip values to the range of each pixel's levels."""
        lower = self.step * self.shifts
        return np.clip(exact, self.output_range.low - lower, self.output_range.high - lower)

    def convolve(self, weight: NDArray[np.float64], *, of: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convolve images (n, in, height, width) in float64."""
        large = of.repeat(self.upsampling, axis=2).repeat(self.upsampling, axis=3)
        size = weight.shape[-1]
        padded = np.pad(large, ((0, 0), (0, 0), *(((size // 2,) * 2,) * 2)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
        summed: NDArray[np.float64] = np.einsum("ncyxab,ocab->noyx", windows, weight)
        return summed

    def _dequantise(
        self, convolution: str, values: dict[str, NDArray[np.generic]]
    ) -> tuple[NDArray[np.float64], float]:
        """Dequantize the input of the convolution, (n, channels, height, width); return its scale too."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.integers.graph.initializer}
        (node,) = (each for each in self.integers.graph.node if each.output[0] == convolution)
        scale, zero_point = (constants[name].astype(np.float64) for name in node.input[1:3])
        image = (values[node.input[0]].astype(np.float64) - zero_point) * scale
        return image.transpose(0, 3, 1, 2), float(scale)


samples = st.builds(
    Sample,
    st.integers(0, 2**32),
    n_in=st.sampled_from((1, 3, 8, 20)),
    size=st.sampled_from((1, 3, 5)),
    upsampling=st.sampled_from((1, 2)),
    width=st.sampled_from((0.2, 0.6)),
)
few = settings(max_examples=25)


@few
@given(sample=samples)
def test_every_value_is_one_of_1021_levels(sample: Sample) -> None:
    levels = sample.levels
    assert np.abs(levels - np.rint(levels)).max() < sample.rounding
    assert levels.min() > -sample.rounding
    assert levels.max() < sample.n_levels - 1 + sample.rounding


@few
@given(sample=samples)
def test_values_are_those_of_the_convolution_clipped_to_the_range(sample: Sample) -> None:
    exact = sample.convolve(sample.weight.astype(np.float64), of=sample.image) + sample.bias
    expected = sample.clip_values(exact)
    # Half a level, and what rounding the weights by half a step each can make at this pixel.
    active = sample.convolve(np.ones_like(sample.weight, dtype=np.float64), of=np.abs(sample.image))
    allowed = (0.5 + ROUNDING) * sample.step + 0.5 * sample.weight_step * (active + sample.image_scale)
    assert np.all(np.abs(sample.found - expected) <= allowed)


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("upsampling", [1, 2])
def test_with_weights_that_are_integers_every_value_is_half_a_level_off_at_most(size: int, upsampling: int) -> None:
    largest = 64
    weight = np.zeros((1, 5, size, size), np.float32)
    if upsampling == 1:
        # One that makes the integers what they are.
        weight[:] = np.random.default_rng(size).integers(-largest, largest + 1, weight.shape)
        weight[0, 0, 0, 0] = largest
    else:
        # One tap: whatever others fall on the same pixel of the small image, they add nothing.
        weight[0, :, size // 2, size // 2] = [largest, -3, 17, -largest, 40]
    weight /= 512
    sample = Sample(size, n_in=5, size=size, upsampling=upsampling, width=0.3, weight=weight)
    exact = sample.convolve(sample.weight.astype(np.float64), of=sample.image) + sample.bias
    expected = sample.clip_values(exact)
    allowed = 0.5 * sample.output_range.step + 0.51 * sample.weight_step * sample.image_scale
    assert np.abs(sample.found - expected).max() <= allowed
    assert allowed < sample.output_range.step


def test_there_are_more_levels_than_eight_bits_hold() -> None:
    sample = Sample(0, n_in=16, size=5, upsampling=1, width=0.6)
    assert len(np.unique(np.rint(sample.levels))) > 256


@pytest.mark.parametrize("upsampling", [1, 2])
def test_what_lies_beyond_the_range_is_its_nearer_end(upsampling: int) -> None:
    sample = Sample(1, n_in=3, size=3, upsampling=upsampling, width=0.1)
    exact = images_of(sample.exact, latents(1)).astype(np.float64)
    margin = 0.1 * sample.output_range.step * N_LEVELS
    for beyond, level in (
        (exact < sample.output_range.low - margin, 0),
        (exact > sample.output_range.high + margin, N_LEVELS - 1),
    ):
        assert beyond.any()
        assert np.all(np.rint(sample.levels[beyond]) == level)


def test_levels_climb_one_by_one_through_the_ends_of_the_segments() -> None:
    # Sixty-four times one channel plus the other: a row a little above each level, and one a little below the next.
    sums = np.stack([16 * np.arange(1024) + 3, 16 * np.arange(1024) + 11])
    image = np.stack([sums // 64, sums % 64]) / 256
    sketch = Sketch()
    nothing, levels = np.zeros((image.size, N_LATENTS), np.float32), image.astype(np.float32).ravel()
    flat = sketch.node("Gemm", ["latent", sketch.constant(nothing), sketch.constant(levels)], transB=1)
    images = sketch.node("Reshape", [flat, sketch.constant(np.array([-1, *image.shape], np.int64))])
    weight = sketch.constant(np.array([64, 1], np.float32).reshape(1, 2, 1, 1))
    output = sketch.node("Conv", [images, weight, sketch.constant(np.zeros(1, np.float32))], kernel_shape=[1, 1])
    model, one = sketch.model(output), latents()[:1]
    made = quantize_graph(model, calibrate(model, feeds_of(one)), OutputRange(low=0.0, high=1020 / 16))
    found = images_of(made, one)[0, 0].astype(np.float64) * 16
    steps = found + grid_shifts(found.shape)
    assert np.array_equal(steps, np.rint(steps))
    assert (steps.min(), steps.max()) == (0, 1020)
    inside = sums / 16 < 1019
    # Sums are odd sixteenths and shifts are eighths, so no sum lies between two levels.
    assert np.abs(found - sums / 16)[inside].max() <= 7 / 16


def test_the_grids_of_a_block_lie_evenly_between_two_levels() -> None:
    shifts = grid_shifts((2, 4))
    assert sorted(shifts.ravel()) == [eighth / 8 for eighth in range(8)]
    # Else a row or a column of a large image would have fewer hits than the next.
    assert {*shifts.mean(axis=0), *shifts.mean(axis=1)} == {3.5 / 8}
    for n_in, upsampling in ((16, 1), (17, 1), (17, 2)):
        sample = Sample(2, n_in=n_in, size=5, upsampling=upsampling, width=0.6)
        eighths = (sample.found - sample.output_range.low) / sample.step * 8
        assert np.abs(eighths - np.rint(eighths)).max() < 8 * sample.rounding
        assert set(np.unique(np.rint(eighths) % 8)) == set(range(8))


@pytest.mark.parametrize(("n_in", "upsampling", "n_segments"), [(16, 1, 4), (17, 1, 2), (16, 2, 4), (17, 2, 4)])
def test_each_row_of_the_blocks_is_one_product(n_in: int, upsampling: int, n_segments: int) -> None:
    graph = Sample(3, n_in=n_in, size=3, upsampling=upsampling).integers.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    (convolution,) = (node for node in graph.node if node.op_type == "QLinearConv")
    assert constants[convolution.input[3]].dims[0] == n_segments * 8
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert [list(constants[node.input[1]].dims) for node in products] == 2 * [[n_segments * 8, 4]]
    (joined,) = (node for node in graph.node if node.op_type == "Concat")
    assert len(joined.input) == len(products)
    assert not any(node.op_type == "Transpose" for node in graph.node)


def test_the_step_is_that_of_1021_levels() -> None:
    assert OutputRange(low=-1.0, high=1.04).step == pytest.approx(2.04 / 1020)


def test_the_result_keeps_its_name_and_type() -> None:
    sample = Sample(2, n_in=3, size=3, upsampling=2)
    before, after = (model.graph.output[0] for model in (sample.exact, sample.integers))
    assert (after.name, after.type.tensor_type.elem_type) == (before.name, onnx.TensorProto.FLOAT)
    assert images_of(sample.integers, latents()).shape == images_of(sample.exact, latents()).shape
