"""Queries of nodes and values."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.graph.nodes import (
    Convolution,
    find_before_upsampling,
    find_only_user,
    have_equal_shapes,
    is_upsampling,
    make_initializer,
    make_unique_name,
    match_convolution,
    match_linear_layer,
    read_constant,
    read_shape,
    set_weights,
)
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    COPYING_MODES,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    evaluate,
    run_by_onnxruntime,
)

COORDINATES: Final = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS: Final = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


def last_of(graph: SmallGraph, *outputs: str) -> ir.Node:
    """Return the last node of a graph."""
    return ir.from_proto(graph.model(*outputs)).graph[-1]


def value_of(shape: list[int | str | None] | None) -> ir.Value:
    return ir.Value(name="x", shape=None if shape is None else ir.Shape(shape))


@pytest.mark.parametrize("nearest_mode", ROUNDINGS)
@pytest.mark.parametrize("coordinate_mode", COORDINATES)
@FEW
@given(seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, size=SIZES)
def test_what_is_called_a_doubling_copies_pixels(
    coordinate_mode: str, nearest_mode: str, seed: int, batch: int, n_channels: int, size: tuple[int, int]
) -> None:
    graph = SmallGraph(seed)
    graph.upsample(
        graph.input(n_channels, *size), coordinate_transformation_mode=coordinate_mode, nearest_mode=nearest_mode
    )
    modes = {"coordinate_transformation_mode": coordinate_mode, "nearest_mode": nearest_mode}
    assert is_upsampling(last_of(graph)) == (modes in COPYING_MODES)
    if modes in COPYING_MODES:
        feeds = graph.feeds(batch)
        expected = feeds["z"].repeat(2, axis=2).repeat(2, axis=3)
        assert np.array_equal(evaluate(graph.model(), feeds)[0], expected)


@pytest.mark.parametrize("modes", COPYING_MODES)
def test_onnxruntime_copies_them_too(modes: dict[str, str]) -> None:
    graph = SmallGraph()
    graph.upsample(graph.input(3, 4, 5), **modes)
    feeds = graph.feeds(2)
    (found,) = run_by_onnxruntime(graph.model(), feeds)
    assert np.array_equal(found, feeds["z"].repeat(2, axis=2).repeat(2, axis=3))


def test_the_modes_that_are_not_written_are_those_of_onnx() -> None:
    graph = SmallGraph()
    graph.node("Resize", graph.input(2, 2, 3), "", graph.constant(np.array([1, 1, 2, 2], np.float32)))
    assert is_upsampling(last_of(graph))
    feeds = graph.feeds(1)
    assert np.array_equal(evaluate(graph.model(), feeds)[0], feeds["z"].repeat(2, axis=2).repeat(2, axis=3))


def test_the_small_image_of_a_doubling_is_its_input() -> None:
    graph = SmallGraph()
    graph.node("Relu", graph.upsample(graph.input(2, 2, 3)))
    relu = last_of(graph)
    image = relu.inputs[0]
    small = find_before_upsampling(image)
    assert small is not None
    assert small.name == "z"
    assert (
        find_before_upsampling(small) is find_before_upsampling(relu.outputs[0]) is find_before_upsampling(None) is None
    )


@pytest.mark.parametrize("axes", [[0, 1, 2, 3], [2, 3, 0, 1]])
def test_a_doubling_of_listed_axes_is_none(axes: list[int]) -> None:
    graph = SmallGraph()
    graph.upsample(graph.input(2, 2, 3), axes=axes)
    assert not is_upsampling(last_of(graph))


def test_nothing_else_is_a_doubling() -> None:
    graph = SmallGraph()
    graph.node("Relu", graph.input(2, 2, 3))
    assert not is_upsampling(last_of(graph))
    assert not is_upsampling(None)
    graph.node("Resize", "z", "", graph.node("Abs", graph.constant(np.array([1, 1, 2, 2], np.float32))))
    assert not is_upsampling(last_of(graph))
    assert not is_upsampling(ir.node("Resize", [value_of([1, 2, 3, 4])]))
    assert not is_upsampling(ir.node("Resize", [value_of([1, 2, 3, 4])] * 3, domain="elsewhere"))


def test_constants_are_initializers_and_constant_nodes() -> None:
    graph = SmallGraph()
    numbers = np.arange(3, dtype=np.float32)
    node = graph.node("Constant", value=numpy_helper.from_array(numbers, "c"))
    graph.node("Max", graph.constant(numbers), node, graph.input(3))
    first, second, third = last_of(graph).inputs
    for value in (first, second):
        found = read_constant(value)
        assert found is not None
        assert found.tolist() == [0, 1, 2]
    assert read_constant(third) is None
    assert read_constant(None) is None
    assert read_constant(last_of(graph).outputs[0]) is None


def test_an_initializer_that_a_caller_may_replace_is_no_constant() -> None:
    graph = SmallGraph()
    default = graph.constant(graph.values(3))
    graph.node("Add", graph.input(3), default)
    model = graph.model()
    model.graph.input.append(helper.make_tensor_value_info(default, onnx.TensorProto.FLOAT, (3,)))
    assert read_constant(ir.from_proto(model).graph[-1].inputs[1]) is None


def test_sizes_are_known_or_not() -> None:
    assert read_shape(value_of([2, "n", None, 3])) == (2, None, None, 3)
    assert read_shape(value_of([])) == ()
    assert read_shape(value_of(None)) is None
    assert read_shape(None) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([2, 3], [2, 3], True),
        (["n", 3], ["n", 3], True),
        ([], [], True),
        (["n", 3], ["m", 3], False),
        ([None, 3], [None, 3], False),
        ([2, 3], [None, 3], False),
        ([2, 3], [2, 1], False),
        ([2, 3], [2, 3, 1], False),
        (["n", 3], [2, 3], False),
        (None, [2, 3], False),
        ([2, 3], None, False),
    ],
)
def test_shapes_are_equal_if_that_is_certain(
    first: list[int | str | None] | None, second: list[int | str | None] | None, expected: bool
) -> None:
    assert have_equal_shapes(value_of(first), value_of(second)) is expected
    assert have_equal_shapes(value_of(second), value_of(first)) is expected


def test_no_value_has_a_shape() -> None:
    assert not have_equal_shapes(None, value_of([2]))
    assert not have_equal_shapes(value_of([2]), None)


def found_convolution(graph: SmallGraph) -> Convolution:
    found = match_convolution(last_of(graph))
    assert found is not None
    return found


def test_a_convolution_is_read_with_its_defaults() -> None:
    graph = SmallGraph()
    weight = graph.values(3, 2, 1, 5)
    graph.node("Conv", graph.input(2, 6, 9), graph.constant(weight))
    found = found_convolution(graph)
    assert np.array_equal(found.weight, weight)
    assert found.bias.tolist() == [0, 0, 0]
    assert found.bias.dtype == np.float32
    assert (found.pads, found.strides, found.dilations, found.groups) == ((0, 0, 0, 0), (1, 1), (1, 1), 1)
    assert found.node.op_type == "Conv"


def test_a_convolution_is_read_with_its_attributes() -> None:
    graph = SmallGraph()
    graph.conv(
        graph.input(4, 6, 9),
        2,
        6,
        (3, 2),
        pads=(0, 1, 2, 3),
        strides=[2, 3],
        dilations=[1, 2],
        group=2,
        auto_pad="NOTSET",
    )  # fmt: skip
    found = found_convolution(graph)
    assert (found.pads, found.strides, found.dilations, found.groups) == ((0, 1, 2, 3), (2, 3), (1, 2), 2)
    assert found.weight.shape == (6, 2, 3, 2)
    assert found.bias.shape == (6,)


@pytest.mark.parametrize(
    ("kernel", "attributes", "is_plain", "is_pointwise", "keeps_size"),
    [
        ((1, 1), {}, True, True, True),
        ((1, 1), {"pads": (1, 1, 1, 1)}, True, False, False),
        ((1, 1), {"strides": [2, 1]}, False, False, False),
        ((1, 1), {"group": 2}, False, False, False),
        ((3, 3), {}, True, False, True),
        ((3, 3), {"pads": (2, 0, 0, 2)}, True, False, True),
        ((3, 3), {"pads": (1, 1, 1, 0)}, True, False, False),
        ((3, 3), {"pads": (1, 1, 1, 1), "dilations": [2, 1]}, False, False, False),
        ((3, 2), {"pads": (1, 1, 1, 0)}, True, False, False),
        ((2, 3), {"pads": (1, 1, 0, 1)}, True, False, False),
        ((1, 7), {}, True, False, True),
    ],
)
def test_kinds_of_convolutions(
    kernel: tuple[int, int], attributes: dict[str, Any], is_plain: bool, is_pointwise: bool, keeps_size: bool
) -> None:
    graph = SmallGraph()
    groups = attributes.get("group", 1)
    graph.conv(graph.input(2, 6, 9), 2 // groups, 2, kernel, **attributes)
    found = found_convolution(graph)
    assert (found.is_plain, found.is_pointwise, found.keeps_size) == (is_plain, is_pointwise, keeps_size)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_pads_that_onnx_must_find_are_not_read(auto_pad: str) -> None:
    graph = SmallGraph()
    weight = graph.constant(graph.values(2, 2, 3, 3))
    graph.node("Conv", graph.input(2, 6, 9), weight, auto_pad=auto_pad)
    assert match_convolution(last_of(graph)) is None


def test_other_nodes_are_no_convolutions() -> None:
    graph = SmallGraph()
    image, weight = graph.input(2, 6, 9), graph.constant(graph.values(2, 2, 3, 3))
    graph.node("Conv", image, weight, graph.node("Abs", graph.constant(graph.values(2))))
    assert match_convolution(last_of(graph)) is None, "a bias that is computed"
    graph.node("Conv", image, graph.node("Abs", weight))
    assert match_convolution(last_of(graph)) is None, "filters that are computed"
    graph.node("Conv", graph.input(2, 6, name="row"), graph.constant(graph.values(2, 2, 3)))
    assert match_convolution(last_of(graph)) is None, "one dimension"
    graph.node("ConvTranspose", image, weight)
    assert match_convolution(last_of(graph)) is None
    halves = graph.constant(graph.values(2, 2, 3, 3).astype(np.float16))
    graph.node("Conv", image, halves)
    assert match_convolution(last_of(graph)) is None, "half precision"
    assert match_convolution(ir.node("Conv", [value_of(None)] * 2, domain="elsewhere")) is None
    assert match_convolution(None) is None


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_linear_layers(is_transposed: bool, bias: bool) -> None:
    graph = SmallGraph(whole=False)
    graph.linear(graph.input(5), 5, 3, is_transposed=is_transposed, bias=bias)
    found = match_linear_layer(last_of(graph))
    assert found is not None
    assert (found.weight.shape, found.bias.shape, found.is_transposed) == ((3, 5), (3,), is_transposed)
    feeds = graph.feeds(2)
    np.testing.assert_allclose(evaluate(graph.model(), feeds)[0], feeds["z"] @ found.weight.T + found.bias, rtol=1e-5)


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_scaled_and_transposed_products_are_no_linear_layers(attributes: dict[str, Any]) -> None:
    graph = SmallGraph()
    graph.node("Gemm", graph.input(97), graph.constant(graph.values(97, 3)), **attributes)
    assert match_linear_layer(last_of(graph)) is None


def test_other_nodes_are_no_linear_layers() -> None:
    graph = SmallGraph()
    flat, weight = graph.input(5), graph.constant(graph.values(5, 3))
    graph.node("Gemm", flat, graph.node("Abs", weight))
    assert match_linear_layer(last_of(graph)) is None, "weights that are computed"
    graph.node("Gemm", flat, weight, graph.node("Abs", graph.constant(graph.values(3))))
    assert match_linear_layer(last_of(graph)) is None, "a bias that is computed"
    graph.node("Gemm", flat, weight, graph.constant(graph.values(1, 3)))
    assert match_linear_layer(last_of(graph)) is None, "a bias of another shape"
    graph.node("Gemm", flat, weight, graph.constant(graph.values(1)))
    assert match_linear_layer(last_of(graph)) is None, "a bias that broadcasts"
    graph.node("MatMul", flat, weight)
    assert match_linear_layer(last_of(graph)) is None
    assert match_linear_layer(ir.node("Gemm", [value_of(None)] * 2, domain="elsewhere")) is None
    assert match_linear_layer(None) is None


def test_the_only_use_of_a_value() -> None:
    graph = SmallGraph()
    once = graph.input(3)
    twice = graph.node("Neg", once)
    given_out = graph.node("Add", twice, twice)
    graph.node("Abs", given_out)
    model = ir.from_proto(graph.model("val_2", given_out))
    negative, total, _ = list(model.graph)
    user = find_only_user(model.graph.inputs[0])
    assert user is not None
    assert user.op_type == "Neg"
    assert find_only_user(negative.outputs[0]) is None
    assert find_only_user(total.outputs[0]) is None
    assert find_only_user(model.graph[-1].outputs[0]) is None


@given(suffixes=st.lists(st.sampled_from(["weight", "bias", "weight+"]), max_size=8))
def test_fresh_names_are_names_of_no_initializer(suffixes: list[str]) -> None:
    graph = SmallGraph()
    graph.conv(graph.input(2, 3, 4), 2, 2)
    node = last_of(graph)
    assert node.graph is not None
    for suffix in suffixes:
        name = make_unique_name(node, suffix)
        assert name.startswith(f"val_0.{suffix}")
        assert name not in node.graph.initializers
        node.graph.register_initializer(make_initializer(name, np.zeros(1)))
    assert len(node.graph.initializers) == 2 + len(suffixes)


def test_a_node_outside_of_a_graph_takes_any_name() -> None:
    node = ir.node("Abs", [value_of([3])])
    node.outputs[0].name = "y"
    assert make_unique_name(node, "weight") == "y.weight"


@pytest.mark.parametrize("bias", [False, True])
def test_new_weights_are_rounded_to_float32(bias: bool) -> None:
    graph = SmallGraph(whole=False)
    graph.conv(graph.input(2, 3, 4), 2, 3, bias=bias)
    made = ir.from_proto(graph.model())
    weight, offset = np.random.default_rng(0).normal(size=(3, 2, 3, 3)), np.array([1.0, 2.0, 1 / 3])
    set_weights(made.graph[-1], weight, offset)
    found = match_convolution(made.graph[-1])
    assert found is not None
    assert np.array_equal(found.weight, weight.astype(np.float32))
    assert np.array_equal(found.bias, offset.astype(np.float32))
    # What the node held before is left for the passes behind to remove.
    ReferenceEvaluator(ir.to_proto(made)).run(None, graph.feeds(2))


def test_a_layer_outside_of_a_graph_has_no_weights_to_set() -> None:
    node = ir.node("Conv", [value_of(None)] * 2)
    with pytest.raises(ValueError, match=r"^the layer is in no graph$"):
        set_weights(node, np.zeros((1, 1, 1, 1)), np.zeros(1))


def test_initializers_hold_arrays_in_the_order_of_c() -> None:
    values = np.asfortranarray(np.arange(6, dtype=np.int64).reshape(2, 3))
    made = make_initializer("numbers", values)
    found = read_constant(made)
    assert found is not None
    assert np.array_equal(found, values)
    assert found.flags.c_contiguous
    assert (read_shape(made), made.dtype, made.name) == ((2, 3), ir.DataType.INT64, "numbers")
