"""Ranges of values and means of convolutions' inputs, against NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from export.errors import GraphError
from export.int8 import calibrate, measure_means
from tests.int8_sketches import Sketch, feeds_of, latents

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.families import Feed

SIZE: Final = (3, 2, 4)
few = settings(max_examples=15)


def sum_of_two(seed: int = 0) -> tuple[Sketch, onnx.ModelProto]:
    """Build a linear layer reshaped to images, plus their pointwise convolution, then a convolution to one channel."""
    sketch = Sketch(seed)
    image = sketch.linear(*SIZE)
    summed = sketch.node("Add", [image, sketch.convolve(sketch.relu(image), SIZE[0], SIZE[0], 1)])
    return sketch, sketch.model(sketch.convolve(summed, SIZE[0], 1, 1))


def plain_values(sketch: Sketch, inputs: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Compute the outputs of the layers above in float64, and their input."""
    linear, shift, _, weight, bias, *_ = (numpy_helper.to_array(each).astype(np.float64) for each in sketch.constants)
    image = (inputs @ linear.T + shift).reshape(-1, *SIZE)
    mixed = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], np.maximum(image, 0)) + bias.reshape(1, -1, 1, 1)
    return {"latent": inputs.astype(np.float64), "Reshape": image, "Conv": mixed, "Add": image + mixed}


@few
@given(seed=st.integers(0, 2**32), n_images=st.integers(1, 7))
def test_ranges_are_those_of_numpy(seed: int, n_images: int) -> None:
    sketch, model = sum_of_two(seed)
    inputs = latents(seed, n_images)
    ranges = calibrate(model, feeds_of(inputs))
    expected = plain_values(sketch, inputs)
    assert {name.partition("_")[0] for name in ranges} == set(expected)
    for name, (low, high) in ranges.items():
        values = expected[name.partition("_")[0]]
        assert (low, high) == pytest.approx((values.min(), values.max()), rel=1e-6, abs=1e-6)


def test_what_a_graph_gives_out_is_not_measured() -> None:
    _, model = sum_of_two()
    (output,) = (value.name for value in model.graph.output)
    assert output.startswith("Conv")
    assert output not in calibrate(model, feeds_of(latents()))


@few
@given(seed=st.integers(0, 2**32), cut=st.integers(1, 5))
def test_ranges_of_many_images_are_those_of_some_and_of_the_others(seed: int, cut: int) -> None:
    _, model = sum_of_two(seed)
    inputs = latents(seed)
    whole = calibrate(model, feeds_of(inputs))
    first, second = (calibrate(model, feeds_of(part)) for part in (inputs[:cut], inputs[cut:]))
    assert whole == {
        name: (min(first[name][0], second[name][0]), max(first[name][1], second[name][1])) for name in whole
    }
    assert whole == calibrate(model, feeds_of(inputs[::-1]))


def test_the_graph_is_left_as_it_is() -> None:
    _, model = sum_of_two()
    before = model.SerializeToString()
    calibrate(model, feeds_of(latents()))
    assert model.SerializeToString() == before


def test_a_graph_may_have_several_inputs() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        several (float[n, 2] first, float[n, 2] second, float[n, 2] third) => (float[n, 2] result) {
            sum = Add(first, second)
            result = Mul(sum, third)
        }
    """)
    rows = np.arange(8, dtype=np.float32).reshape(4, 1, 2)
    feeds: list[Feed] = [{"first": row, "second": -3 * row, "third": row} for row in rows]
    # The third input is a part neither of a sum nor of a linear layer.
    assert calibrate(model, feeds) == {"sum": (-14.0, 0.0), "first": (0.0, 7.0), "second": (-21.0, 0.0)}


def test_a_graph_may_have_no_layer_before_its_output() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        linear (float[n, 2] latent) => (float[n, 1] result) <float[2, 1] weight = {1.0, 2.0}> {
            result = Gemm(latent, weight)
        }
    """)
    rows = np.arange(8, dtype=np.float32).reshape(4, 1, 2)
    assert calibrate(model, [{"latent": row} for row in rows]) == {"latent": (0.0, 7.0)}


def test_a_convolution_may_be_of_an_input() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["": 18]>
        one (float[n, 2, 1, 2] image) => (float[n, 1, 1, 2] result) <float[1, 2, 1, 1] weight = {1.0, 2.0}> {
            result = Conv(image, weight)
        }
    """)
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 1, 2)
    means = measure_means(model, [{"image": image} for image in images])
    assert {name: values.tolist() for name, values in means.items()} == {"result": [2.5, 4.5]}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    _, model = sum_of_two()
    inputs = latents(0, 3)
    inputs[1, 5] = bad
    with pytest.raises(GraphError, match=r"^int8 cannot hold the values \w+, which are not all finite: export in fl"):
        calibrate(model, feeds_of(inputs))


@few
@given(seed=st.integers(0, 2**32), n_images=st.integers(1, 7))
def test_means_are_those_of_numpy(seed: int, n_images: int) -> None:
    sketch, model = sum_of_two(seed)
    inputs = latents(seed, n_images)
    means = measure_means(model, feeds_of(inputs))
    values = plain_values(sketch, inputs)
    inside, last = (node.output[0] for node in model.graph.node if node.op_type == "Conv")
    assert means.keys() == {inside, last}
    assert means[inside] == pytest.approx(np.maximum(values["Reshape"], 0).mean((0, 2, 3)), rel=1e-5, abs=1e-6)
    assert means[last] == pytest.approx(values["Add"].mean((0, 2, 3)), rel=1e-5, abs=1e-6)
