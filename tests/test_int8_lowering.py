"""Small int8 graphs on ONNX Runtime: equal to plain NumPy, integer by integer, and close to float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.int8 import OutputRange, calibrate, quantize_graph
from tests.compiled_graphs import simplify_graph
from tests.int8_sketches import Int8Graph, Sketch, chain, feeds_of, finish, images_of, latents, lower, residual
from tests.test_int8_operators import OPERATORS, check_plain_integers, every_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

VECTOR_OPERATORS: Final = {"QuantizeLinear", "QGemm"}
INTEGER_OPERATORS: Final = {*VECTOR_OPERATORS, "QLinearConv", "QLinearAdd", "Concat", "Reshape", "Slice", "Clip"}

few = settings(max_examples=20)


def require_near(made: Int8Graph) -> None:
    """Compare the images with float32's, in steps of 255 over their range."""
    exact, found = (images_of(model, made.inputs) for model in (made.exact, made.integers))
    assert (found.shape, found.dtype) == (exact.shape, exact.dtype)
    steps = (found - exact) * (255 / (made.output_range.high - made.output_range.low))
    assert np.sqrt(np.mean(steps**2)) < 4
    assert np.abs(steps).max() < 16


def require_sound(made: Int8Graph) -> None:
    onnx.checker.check_model(made.integers, full_check=True)
    values = check_plain_integers(made.integers, {"latent": made.inputs})
    # Watching every value must not have changed what is computed.
    assert np.array_equal(values[made.integers.graph.output[0].name], images_of(made.integers, made.inputs))
    require_shapes_as_said(made.integers, values)
    require_integers_between(made.integers)
    require_near(made)


def require_shapes_as_said(model: onnx.ModelProto, values: dict[str, NDArray[np.generic]]) -> None:
    said = {value.name: value.type.tensor_type for value in (*model.graph.value_info, *model.graph.output)}
    for name, value in values.items():
        if name in said and said[name].HasField("shape"):
            assert [axis.dim_value for axis in said[name].shape.dim[1:]] == list(value.shape[1:]), name
            assert helper.tensor_dtype_to_np_dtype(said[name].elem_type) == value.dtype, name


def require_integers_between(model: onnx.ModelProto) -> None:
    """Check that every value from the quantized input to the last layer is uint8.

    Images are (n, height, width, channels), the input and output of the linear layer (n, elements), the segments of the
    last layer (n, blocks, channels).
    """
    (last,) = {node.input[0] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"}
    said = {value.name: value.type.tensor_type for value in model.graph.value_info}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    waiting, seen = [last], set()
    while waiting:
        node = makers[waiting.pop()]
        if node.output[0] in seen:
            continue
        seen.add(node.output[0])
        value = said[node.output[0]]
        assert value.elem_type == TensorProto.UINT8, node.output[0]
        assert node.op_type in INTEGER_OPERATORS
        n_axes = 3 if node.output[0] == last else 2 if node.op_type in VECTOR_OPERATORS else 4
        assert len(value.shape.dim) == n_axes, node.output[0]
        if node.op_type == "QuantizeLinear":
            assert node.input[0] == "latent"
            continue
        if node.op_type == "QGemm":
            assert value.shape.dim[1].dim_value == constants[node.input[3]].dims[1]
        if node.op_type == "QLinearConv":
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            assert attributes["channels_last"] == 1
            assert value.shape.dim[3].dim_value == constants[node.input[3]].dims[0]
        waiting += [name for name in node.input if name in makers]
    floats = {node.op_type for node in model.graph.node if node.output[0] not in seen}
    # A last convolution of single pixels is done before the doubling, which then comes behind it.
    assert floats <= {"Reshape", "MatMulIntegerToFloat", "Concat", "Resize"}


@few
@given(
    seed=st.integers(0, 2**32),
    channels=st.tuples(*(st.sampled_from((3, 16, 17, 63, 64)),) * 3),
    sizes=st.tuples(st.sampled_from((3, 5)), st.sampled_from((1, 3, 5)), st.sampled_from((1, 3, 5))),
    is_last_doubled=st.booleans(),
)
@example(seed=0, channels=(16, 16, 16), sizes=(3, 3, 3), is_last_doubled=False)
@example(seed=1, channels=(3, 63, 17), sizes=(5, 3, 5), is_last_doubled=True)
@example(seed=2, channels=(3, 64, 64), sizes=(3, 5, 3), is_last_doubled=False)
@example(seed=3, channels=(3, 64, 5), sizes=(5, 5, 1), is_last_doubled=True)
@pytest.mark.slow
def test_a_chain_of_layers(
    seed: int, channels: tuple[int, int, int], sizes: tuple[int, int, int], is_last_doubled: bool
) -> None:
    made = lower(simplify_graph(finish(chain(seed, channels, sizes, is_last_doubled=is_last_doubled))))
    require_sound(made)
    # Without a sum nothing lies between two levels by chance, so that the whole graph must come out bit for bit.
    (expected,) = ReferenceEvaluator(made.integers, new_ops=OPERATORS).run(None, {"latent": made.inputs})
    assert np.array_equal(images_of(made.integers, made.inputs), np.asarray(expected))


@few
@given(
    seed=st.integers(0, 2**32),
    channels=st.tuples(*(st.sampled_from((3, 16, 17, 63, 64)),) * 2),
    size=st.sampled_from((3, 5)),
    n_blocks=st.integers(1, 2),
)
@example(seed=0, channels=(16, 16), size=3, n_blocks=2)
@example(seed=1, channels=(3, 64), size=3, n_blocks=2)
@pytest.mark.slow
def test_residual_blocks(seed: int, channels: tuple[int, int], size: int, n_blocks: int) -> None:
    model = simplify_graph(finish(residual(seed, channels, size, n_blocks=n_blocks)))
    made = lower(model)
    require_sound(made)
    assert [node.op_type for node in made.integers.graph.node].count("QLinearAdd") >= n_blocks


@given(n_images=st.integers(1, 5), start=st.integers(0, 1))
@settings(max_examples=8)
def test_an_image_does_not_depend_on_its_batch(n_images: int, start: int) -> None:
    made = lower(simplify_graph(finish(residual(5, (4, 6), 3))))
    images = images_of(made.integers, made.inputs)
    assert np.array_equal(
        images_of(made.integers, made.inputs[start : start + n_images]), images[start : start + n_images]
    )


# Forms


def names_of(model: onnx.ModelProto, operator: str) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == operator]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 70), st.just(2), st.sampled_from((4, 8))),
    is_rectified=st.booleans(),
)
def test_the_bytes_of_a_linear_layer_are_those_of_plain_numpy(
    seed: int, shape: tuple[int, int, int], is_rectified: bool
) -> None:
    sketch = Sketch(seed)
    image = sketch.linear(*shape)
    weight, bias = sketch.constants[:2]
    for each in (weight, bias):
        numbers = sketch.random.standard_normal(list(each.dims)).astype(np.float32)
        each.CopyFrom(numpy_helper.from_array(numbers, each.name))
    sketch.convolve(sketch.relu(image) if is_rectified else image, shape[0], 1, 3)
    made = lower(finish(sketch))
    name = f"{image}.{'rectified' if is_rectified else 'u8'}"
    found = every_value(made.integers, {"latent": made.inputs})[name]

    factors, offsets = (numpy_helper.to_array(each).astype(np.float64) for each in (weight, bias))
    exact = images_of(sketch.model(image), made.inputs)
    # A quarter more than the largest latents, and 0, have levels.
    inputs, in_scale = quantize(made.inputs, 1.25 * min(made.inputs.min(), 0), 1.25 * made.inputs.max())
    low = 0.0 if is_rectified else float(exact.min())
    _, scale = quantize(exact, low, float(exact.max()))
    steps = (np.abs(factors).max(axis=1) / 64).astype(np.float32)
    integers = np.rint(factors / steps[:, np.newaxis].astype(np.float64)).astype(np.int64)
    shifts = np.rint(offsets / (float(in_scale) * steps.astype(np.float64))).astype(np.int64)
    sums = inputs @ integers.T + shifts
    levels = np.rint(sums.astype(np.float32) * (in_scale * steps / scale)) + round(-low / float(scale))
    expected = np.clip(levels, 0, 255).reshape(-1, *shape).transpose(0, 2, 3, 1)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def quantize(values: NDArray[np.float32], low: float, high: float) -> tuple[NDArray[np.int64], np.float32]:
    """Quantize values by 256 levels of this range: levels above that of 0, and the distance of two levels."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32((high - low) / 255)
    zero_point = round(-low / float(scale))
    levels: NDArray[np.float64] = np.clip(np.rint(values / scale) + zero_point, 0, 255)
    return levels.astype(np.int64) - zero_point, scale


def test_what_is_used_both_rectified_and_not_is_convolved_once() -> None:
    sketch = Sketch(3)
    image = sketch.convolve(sketch.upsample(sketch.linear(3, 2, 4)), 3, 18, 3)
    main = sketch.convolve(sketch.relu(image), 18, 18, 3)
    sketch.convolve(sketch.relu(sketch.node("Add", [main, image])), 18, 1, 3)
    made = lower(simplify_graph(finish(sketch)))
    require_sound(made)
    (clipped,) = (node for node in made.integers.graph.node if node.op_type == "Clip")
    assert clipped.output[0].endswith(".rectified")
    assert len(names_of(made.integers, "QLinearConv")) == 2 + 1 + 1, "two rows, the main branch, the last layer"


def test_a_linear_layer_used_both_rectified_and_not_is_multiplied_once() -> None:
    made = lower(simplify_graph(finish(residual(4, (5, 18), 3))))
    require_sound(made)
    assert not names_of(made.integers, "Gemm")
    assert len(names_of(made.integers, "QGemm")) == 1
    assert len(names_of(made.integers, "QuantizeLinear")) == 1
    (clipped,) = (node for node in made.integers.graph.node if node.op_type == "Clip")
    values = every_value(made.integers, {"latent": made.inputs})
    (zero_point,) = (numpy_helper.to_array(t) for t in made.integers.graph.initializer if t.name == clipped.input[1])
    whole, rectified = (values[name] for name in (clipped.input[0], clipped.output[0]))
    assert 0 < zero_point < 255
    assert np.array_equal(rectified, np.maximum(whole, zero_point))
    assert (whole < zero_point).any()


def test_a_doubled_image_that_others_use_too_is_added_by_copying_its_columns() -> None:
    sketch = Sketch(6)
    small = sketch.convolve(sketch.linear(3, 2, 4), 3, 18, 1)
    main = sketch.convolve(sketch.upsample(sketch.relu(small)), 18, 18, 3)
    sketch.convolve(sketch.relu(sketch.node("Add", [sketch.upsample(small), main])), 18, 1, 3)
    made = lower(simplify_graph(finish(sketch)))
    require_sound(made)
    assert [name for name in names_of(made.integers, "Concat") if name.endswith(".wide")]


def test_an_image_that_is_always_dark_is_all_zeros() -> None:
    sketch = Sketch(8)
    image = sketch.convolve(sketch.relu(sketch.linear(3, 2, 8)), 3, 18, 3)
    bias = sketch.constants[-1]
    bias.CopyFrom(numpy_helper.from_array(np.full(18, -100, np.float32), bias.name))
    output = sketch.convolve(sketch.relu(image), 18, 1, 3)
    model = sketch.model(output)
    made = quantize_graph(model, calibrate(model, feeds_of(latents())), OutputRange(low=-2.0, high=2.0))
    values = check_plain_integers(made, {"latent": latents()})
    assert not values[f"{image}.rectified"].any()
    weight, (expected,) = (numpy_helper.to_array(each) for each in sketch.constants[-2:])
    allowed = 0.51 * 4 / 510 + 0.51 * np.abs(weight).max() / 64
    assert np.abs(values[output].astype(np.float64) - expected).max() <= allowed


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), channels=st.sampled_from((1, 5, 18, 70)), is_shared=st.booleans())
def test_a_batch_norm_that_is_left_over_is_done_in_integers(seed: int, channels: int, is_shared: bool) -> None:
    sketch = Sketch(seed)
    image = sketch.convolve(sketch.linear(3, 4, 8), 3, channels, 3)
    signs = np.where(np.arange(channels) % 3 == 2, -1, 1)
    numbers = (
        signs * sketch.random.uniform(0.5, 1.5, channels),
        sketch.random.standard_normal(channels),
        sketch.random.standard_normal(channels),
        sketch.random.uniform(0.5, 1.5, channels),
    )
    inputs = [image, *(sketch.constant(each.astype(np.float32)) for each in numbers)]
    normed = sketch.node("BatchNormalization", inputs, epsilon=1e-3)
    summed = sketch.node("Add", [sketch.relu(normed), normed if is_shared else image])
    sketch.convolve(sketch.relu(summed), channels, 1, 3)
    made = lower(finish(sketch))
    require_sound(made)
    groups = [
        each.i for node in made.integers.graph.node for each in node.attribute if each.name == "group" and each.i != 1
    ]
    assert groups == ([] if channels == 1 else [channels] * (1 + is_shared))


def test_what_follows_the_last_convolution_stays_float32() -> None:
    sketch = chain(7, (3, 5, 5), (3, 3, 3))
    inner = lower(simplify_graph(finish(sketch)))
    sketch.node("Tanh", [sketch.nodes[-1].output[0]])
    outer = finish(sketch)
    model = quantize_graph(outer, calibrate(outer, feeds_of(inner.inputs)), inner.output_range)
    assert model.graph.node[-1].op_type == "Tanh"
    expected = np.tanh(images_of(inner.integers, inner.inputs))
    np.testing.assert_allclose(images_of(model, inner.inputs), expected, rtol=1e-5, atol=1e-6)
