"""Graphs in float16 with float32 inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from export.errors import GraphError
from export.graph import convert_to_float16
from tests.compiled_graphs import compile_graph
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    assert_close,
    evaluate,
    list_operators,
    plain_generator,
    read_initializers,
    residual_generator,
    run_by_onnxruntime,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Target

FLOAT16_ROUNDING: Final = 8 * 2.0**-11
"""Bound on some roundings to float16, relative to the largest value."""


def types_of(model: onnx.ModelProto) -> dict[str, np.dtype[Any]]:
    """Read the types of all values of a model from shape inference."""
    known = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {
        each.name: np.dtype(helper.tensor_dtype_to_np_dtype(each.type.tensor_type.elem_type))
        for each in (*known.input, *known.value_info, *known.output)
    }
    return types | {name: values.dtype for name, values in read_initializers(model).items()}


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model to float16, and check its types with ONNX."""
    made = convert_to_float16(model)
    onnx.checker.check_model(made, full_check=True)
    types_of(made)
    return made


def made_positive(model: onnx.ModelProto) -> None:
    """Make all weights positive, so that with positive inputs no sum cancels."""
    for each in model.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(np.abs(numpy_helper.to_array(each)), each.name))


def check_close(made: onnx.ModelProto, model: onnx.ModelProto, feeds: dict[str, NDArray[np.float32]]) -> None:
    """Check that both evaluators find float32 results close to those of the float32 graph."""
    for results in (evaluate(made, feeds), run_by_onnxruntime(made, feeds)):
        for found, expected in zip(results, evaluate(model, feeds), strict=True):
            assert found.dtype == np.float32
            assert_close(found, expected, FLOAT16_ROUNDING)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES,
    last=st.sampled_from(["Tanh", "Abs", "LeakyRelu", "Neg"]), bias=st.booleans(), whole=st.booleans(),
)  # fmt: skip
def test_a_pointwise_operator_at_the_end_stays_in_float32(
    seed: int, batch: int, n_in: int, n_out: int, size: tuple[int, int], last: str, bias: bool, whole: bool
) -> None:
    graph = SmallGraph(seed, whole=whole)
    graph.node(last, graph.conv(graph.node("Relu", graph.input(n_in, *size)), n_in, n_out, bias=bias))
    model = graph.model()
    if not whole:
        made_positive(model)
    made = halve(model)
    assert list_operators(made) == ["Cast", "Relu", "Conv", "Cast", last]
    types = types_of(made)
    *before, _, end = made.graph.node
    assert all(types[node.output[0]] == np.float16 for node in before)
    assert types[end.input[0]] == types[end.output[0]] == types["z"] == np.float32
    assert all(values.dtype == np.float16 for values in read_initializers(made).values())
    assert end.output[0] == model.graph.output[0].name
    check_close(made, model, graph.feeds(batch))


@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES)
def test_other_operators_at_the_end_are_cast_behind(seed: int, batch: int, size: tuple[int, int]) -> None:
    graph = SmallGraph(seed)
    model = graph.model(graph.conv(graph.input(2, *size), 2, 3))
    made = halve(model)
    assert list_operators(made) == ["Cast", "Conv", "Cast"]
    assert [each.name for each in made.graph.output] == ["val_0"]
    check_close(made, model, graph.feeds(batch))


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("write", [plain_generator, residual_generator])
@settings(max_examples=8)
@given(seed=SEEDS, batch=BATCHES, channels=st.lists(st.integers(3, 6), min_size=2, max_size=3))
def test_compiled_generators(
    write: Callable[[SmallGraph, int, list[int]], onnx.ModelProto],
    target: Target,
    seed: int,
    batch: int,
    channels: list[int],
) -> None:
    graph = SmallGraph(seed, whole=False)
    model = compile_graph(write(graph, 3, channels), target)
    made = halve(model)
    feeds = graph.feeds(batch)
    for results in (evaluate(made, feeds), run_by_onnxruntime(made, feeds)):
        for found, expected in zip(results, evaluate(model, feeds), strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            assert np.abs(found - expected).max() < 0.05


def test_the_parameters_of_resize_stay_float32() -> None:
    graph = SmallGraph(whole=False)
    graph.upsample(graph.input(2, 2, 3))
    model = graph.model()
    made = halve(model)
    assert list_operators(made) == ["Cast", "Resize", "Cast"]
    assert [values.dtype for values in read_initializers(made).values()] == [np.float32]
    check_close(made, model, graph.feeds(2))


def test_integers_stay() -> None:
    graph = SmallGraph(whole=False)
    graph.slice(graph.node("Abs", graph.reshape(graph.input(12), 0, 2, 6)), 0, 4, 2)
    model = graph.model()
    made = halve(model)
    assert all(values.dtype == np.int64 for values in read_initializers(made).values())
    check_close(made, model, graph.feeds(2))


def test_a_result_of_integers_stays() -> None:
    graph = SmallGraph(whole=False)
    place = graph.node("ArgMax", graph.input(5), axis=1)
    model = graph.model(place)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(place, TensorProto.INT64, ("n", 1)))
    made = halve(model)
    feeds = {"z": np.arange(10, dtype=np.float32).reshape(2, 5)}
    assert list_operators(made) == ["Cast", "ArgMax"]
    assert evaluate(made, feeds)[0].tolist() == evaluate(model, feeds)[0].tolist()


def test_a_result_that_is_used_within_too() -> None:
    graph = SmallGraph(whole=False)
    first = graph.node("Tanh", graph.conv(graph.input(2, 3, 4), 2, 2))
    second = graph.node("Tanh", graph.conv(first, 2, 2))
    model = graph.model(first, second)
    made = halve(model)
    assert [each.name for each in made.graph.output] == [first, second]
    check_close(made, model, graph.feeds(2))


def test_constants_that_are_nodes_become_halves_too() -> None:
    graph = SmallGraph(whole=False)
    image = graph.input(2, 3, 4)
    number = graph.node("Constant", value=numpy_helper.from_array(np.array([0.5], np.float32), "half"))
    graph.node("Abs", graph.node("Add", image, number))
    model = graph.model()
    made = halve(model)
    assert list_operators(made) == ["Cast", "Add", "Cast", "Abs"]
    check_close(made, model, graph.feeds(2))


def test_weights_of_two_layers_are_kept_once() -> None:
    graph = SmallGraph(whole=False)
    image, weight = graph.input(2, 3, 4), graph.constant(graph.values(2, 2, 1, 1))
    graph.node("Abs", graph.node("Conv", graph.node("Conv", image, weight), weight))
    model = graph.model()
    made = halve(model)
    assert [values.dtype for values in read_initializers(made).values()] == [np.float16]
    check_close(made, model, graph.feeds(2))


def test_the_graph_that_is_given_does_not_change() -> None:
    model = plain_generator(SmallGraph(whole=False), 3, [2, 2])
    before = model.SerializeToString()
    convert_to_float16(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("value", "says"), [(1e5, r"1e\+05"), (-70000.0, r"7e\+04"), (float("inf"), "inf")])
def test_weights_that_are_too_large_are_refused(value: float, says: str) -> None:
    graph = SmallGraph()
    weight = graph.constant(np.array([1.0, value], np.float32).reshape(1, 2, 1, 1))
    graph.node("Conv", graph.input(2, 3, 4), weight)
    message = rf"^float16 cannot hold the weights c0, which reach {says}: export in float32\.$"
    with pytest.raises(GraphError, match=message):
        convert_to_float16(graph.model())


def test_the_largest_weight_that_float16_holds_is_taken() -> None:
    graph = SmallGraph()
    graph.node("Conv", graph.input(1, 3, 4), graph.constant(np.full((1, 1, 1, 1), 65504, np.float32)))
    (values,) = read_initializers(convert_to_float16(graph.model())).values()
    assert values.tolist() == [[[[65504]]]]


def test_a_value_that_nothing_gives_is_refused() -> None:
    graph = SmallGraph()
    graph.node("Add", graph.input(5), "ghost")
    model = graph.model()
    model.graph.value_info.append(helper.make_tensor_value_info("ghost", TensorProto.FLOAT, ("n", 5)))
    with pytest.raises(GraphError, match=r"^The value ghost has no producer and is no constant\.$"):
        convert_to_float16(model)
