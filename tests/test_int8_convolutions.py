"""Forms of 8-bit convolutions: two columns at once, and phases of a doubled image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import numpy_helper

from tests.compiled_graphs import simplify_graph
from tests.int8_sketches import Sketch, chain, finish, lower
from tests.test_int8_lowering import names_of, require_sound
from tests.test_int8_operators import check_plain_integers

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def weights_of(model: onnx.ModelProto, suffix: str) -> list[NDArray[np.generic]]:
    """Find the integer weights (out, in, height, width) of convolutions whose names end like this."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return [constants[f"{name}.weight"] for name in names_of(model, "QLinearConv") if name.endswith(suffix)]


@pytest.mark.parametrize("channels", [3, 63, 64])
@pytest.mark.parametrize(("size", "taps", "is_shifted"), [(1, 1, False), (3, 2, True), (5, 3, False), (7, 4, True)])
def test_a_convolution_of_a_doubled_image_is_two_rows_of_two_columns(
    channels: int, size: int, taps: int, is_shifted: bool
) -> None:
    sketch = Sketch()
    image = sketch.convolve(sketch.upsample(sketch.relu(sketch.linear(3, 2, 4))), 3, channels, size)
    sketch.convolve(sketch.relu(image), channels, 1, 3)
    # Not simplified: a convolution of single pixels would be moved before the upsampling.
    made = lower(finish(sketch))
    require_sound(made)
    found = [name.partition(".rectified.")[2] for name in names_of(made.integers, "QLinearConv") if ".row" in name]
    assert found == ["row0", "row1"]
    for row in found:
        (weight,) = weights_of(made.integers, row)
        assert weight.shape == (2 * channels, 3, taps, taps)
        # Every tap has weights for both columns, so that no product is of a zero.
        assert weight.reshape(2, channels, 3, taps, taps).any(axis=(1, 2)).all()
    slices = [name.partition(".rectified.")[2] for name in names_of(made.integers, "Slice")]
    assert slices == (["row0.inner", "row1.inner"] if is_shifted else [])


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_rows_of_two_columns_are_the_plain_convolution_of_the_doubled_image(size: int, width: int) -> None:
    n_in, n_out = 3, 5
    sketch = Sketch(size)
    image = sketch.linear(n_in, 2, width)
    output = sketch.convolve(sketch.upsample(image), n_in, n_out, size)
    random = np.random.default_rng(size)
    weight = random.integers(-16, 17, (n_out, n_in, size, size))
    # A phase sums up to four taps. Because of this lone tap, 64 is the largest sum of each: all sums stay integers.
    weight[:, 0] = 0
    weight[:, 0, size // 2, size // 2] = 64
    kept, bias = sketch.constants[-2:]
    kept.CopyFrom(numpy_helper.from_array((weight / 512).astype(np.float32), kept.name))
    sketch.convolve(output, n_out, 1, 1)
    made = lower(finish(sketch))
    values = check_plain_integers(made.integers, {"latent": made.inputs})
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.integers.graph.initializer}
    scale, zero_point = (constants[f"{output}.u8.row0.input.{key}"] for key in ("scale", "zero_point"))
    assert zero_point > 0, "pads of zeros would be right by chance"
    doubled = values[f"{image}.u8"].astype(np.int64).repeat(2, axis=1).repeat(2, axis=2) - int(zero_point)
    pad = size // 2
    padded = np.pad(doubled, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    shift = np.rint(numpy_helper.to_array(bias).astype(np.float64) / (float(scale) / 512)).astype(np.int64)
    sums = np.einsum("nyxcab,ocab->nyxo", windows, weight) + shift
    out_scale, out_zero = (constants[f"{output}.u8.row0.{key}"] for key in ("scale", "zero_point"))
    factor = scale * np.float32(1 / 512) / out_scale
    expected = np.clip(np.rint(sums.astype(np.float32) * factor) + int(out_zero), 0, 255)
    found = values[f"{output}.u8"]
    assert found.shape == (len(made.inputs), 4, 2 * width, n_out)
    assert np.array_equal(found[:, :, 0], expected[:, :, 0]), "left edge"
    assert np.array_equal(found[:, :, -1], expected[:, :, -1]), "right edge"
    assert np.array_equal(found, expected)
    assert len(np.unique(found[:, :, [0, -1]])) > 50


@pytest.mark.parametrize(("channels", "is_wide"), [(16, True), (17, False)])
def test_few_channels_are_computed_two_columns_at_once(channels: int, is_wide: bool) -> None:
    made = lower(simplify_graph(finish(chain(0, (3, 20, channels), (3, 3, 3)))))
    # Two columns depend on four.
    shapes = [weight.shape for weight in weights_of(made.integers, ".columns")]
    assert shapes == ([(2 * channels, 20, 3, 4)] if is_wide else [])
    require_sound(made)


@pytest.mark.parametrize("stride", [1, 2])
def test_an_odd_number_of_columns_is_computed_one_by_one(stride: int) -> None:
    sketch = Sketch()
    image = sketch.convolve(sketch.linear(3, 1, 5 * stride), 3, 5, 3, strides=[1, stride])
    image = sketch.relu(sketch.convolve(sketch.relu(image), 5, 5, 1))
    # 3 x 3 with pads of two: two columns more, and two rows.
    image = sketch.convolve(image, 5, 4, 3, pad=2)
    # 4 x 4 with pads of two: one column more, and one row.
    image = sketch.convolve(sketch.relu(image), 4, 4, 4, pad=2)
    sketch.convolve(sketch.relu(image), 4, 1, 3)
    made = lower(finish(sketch))
    assert not weights_of(made.integers, ".columns")
    assert len(names_of(made.integers, "QLinearConv")) == 5
    require_sound(made)
