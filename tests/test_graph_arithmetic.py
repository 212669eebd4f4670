"""Costs of graphs, counted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from export.graph import Cost, count_multiply_accumulates
from export.graph.arithmetic import count_cost
from tests.small_graphs import SmallGraph

if TYPE_CHECKING:
    from collections.abc import Sequence

Axes = tuple[int | str, ...]


def cost_of(model: SmallGraph, *outputs: str) -> Cost:
    return count_cost(ir.from_proto(model.model(*outputs)))


def cost_of_node(
    operator: str, inputs: Sequence[Axes], output: Axes, *, of: ir.DataType = ir.DataType.FLOAT, **attributes: int
) -> Cost:
    """Count the cost of one node with these shapes of inputs and output."""
    values = [ir.Value(name=f"i{n}", shape=ir.Shape(axes), type=ir.TensorType(of)) for n, axes in enumerate(inputs)]
    node = ir.node(operator, values, attributes)
    node.outputs[0].shape, node.outputs[0].dtype = ir.Shape(output), of
    return count_cost(ir.Model(ir.Graph(values, node.outputs, nodes=[node]), ir_version=10))


def test_a_generator_of_three_layers() -> None:
    graph = SmallGraph()
    images = graph.reshape(graph.linear(graph.input(5), 5, 12), -1, 2, 2, 3)
    graph.node("Relu", graph.conv(graph.upsample(images), 2, 3, (3, 1)))
    found = cost_of(graph)
    linear, convolution = 12 * 5, 3 * 4 * 6 * 2 * 3 * 1
    assert found.multiply_accumulates == linear + convolution
    weights = {"Gemm": 5 * 12 + 12, "Conv": 3 * 2 * 3 + 3, "Resize": 4}
    images_moved = {"Gemm": 5 + 12, "Resize": 12 + 48, "Conv": 48 + 72, "Relu": 72 + 72}
    assert found.bytes_moved == 4 * (sum(weights.values()) + sum(images_moved.values()))
    assert found.weight_bytes == 4 * sum(weights.values()) + 8 * 4
    assert count_multiply_accumulates(graph.model()) == linear + convolution


def test_groups_and_strides_cost_what_they_compute() -> None:
    graph = SmallGraph()
    graph.conv(graph.input(4, 4, 6), 2, 6, strides=[2, 2], group=2, bias=False)
    found = cost_of(graph)
    assert found.multiply_accumulates == 6 * 2 * 3 * 2 * 9
    assert found.bytes_moved == 4 * (4 * 4 * 6 + 6 * 2 * 9 + 6 * 2 * 3)
    assert found.weight_bytes == 4 * 6 * 2 * 9


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "attributes", "n_products"),
    [
        ("Conv", [("n", 2, 4, 6), (3, 2, 3, 5)], ("n", 3, 4, 6), {}, 3 * 24 * 2 * 15),
        ("QLinearConv", [("n", 2, 4, 6), (1,), (1,), (3, 2, 3, 5)], ("n", 3, 4, 6), {}, 3 * 24 * 2 * 15),
        ("Gemm", [("n", 5), (5, 7)], ("n", 7), {}, 35),
        ("Gemm", [("n", 5), (7, 5)], ("n", 7), {"transB": 1}, 35),
        ("Gemm", [(5, 2), (5, 7)], (2, 7), {"transA": 1}, 2 * 35),
        ("MatMul", [("n", 3, 5), (5, 7)], ("n", 3, 7), {}, 3 * 35),
        ("MatMulInteger", [("n", 5), (5, 7)], ("n", 7), {}, 35),
        ("MatMulIntegerToFloat", [("n", 5), (5, 7)], ("n", 7), {}, 35),
        ("QGemm", [("n", 5), (1,), (1,), (5, 7), (7,), (7,), (7,)], ("n", 7), {}, 35),
        ("Add", [("n", 5), ("n", 5)], ("n", 5), {}, 0),
        ("Resize", [("n", 2, 3, 4)], ("n", 2, 6, 8), {}, 0),
    ],
)
def test_products_of_operators(
    operator: str, inputs: list[Axes], output: Axes, attributes: dict[str, int], n_products: int
) -> None:
    found = cost_of_node(operator, inputs, output, of=ir.DataType.FLOAT, **attributes)
    assert found.multiply_accumulates == n_products
    shapes = [*inputs, output]
    assert found.bytes_moved == 4 * sum(
        int(np.prod([axis for axis in each if isinstance(axis, int)])) for each in shapes
    )


@pytest.mark.parametrize("operator", ["Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"])
def test_another_shape_of_the_same_bytes_costs_nothing(operator: str) -> None:
    assert cost_of_node(operator, [("n", 6)], ("n", 6)) == Cost(multiply_accumulates=0, bytes_moved=0, weight_bytes=0)


@pytest.mark.parametrize(
    ("of", "n_bytes"),
    [(ir.DataType.FLOAT16, 2), (ir.DataType.UINT8, 1), (ir.DataType.DOUBLE, 8), (ir.DataType.INT4, 0.5)],
)
def test_bytes_are_those_of_the_type(of: ir.DataType, n_bytes: float) -> None:
    assert cost_of_node("Abs", [("n", 6)], ("n", 6), of=of).bytes_moved == 12 * n_bytes


def test_half_a_byte_is_moved_whole() -> None:
    assert cost_of_node("Abs", [("n", 5)], ("n", 5), of=ir.DataType.INT4).bytes_moved == 6


def test_a_fixed_batch_costs_that_many_images() -> None:
    assert cost_of_node("Gemm", [(8, 5), (5, 7)], (8, 7)).multiply_accumulates == 8 * 35


@pytest.mark.parametrize("axes", [("n", 2, 3), (2, "n", 3), (2, 3, "n")])
def test_the_batch_may_be_any_axis(axes: tuple[int | str, ...]) -> None:
    assert cost_of_node("Relu", [axes], axes).bytes_moved == 2 * 2 * 3 * 4
    assert cost_of_node("MatMul", [(5, 7), (7, "n")], (5, "n")).multiply_accumulates == 5 * 7


def test_a_value_of_which_no_shape_is_known_is_refused() -> None:
    graph = SmallGraph()
    value = graph.node("Relu", graph.input(3))
    model = graph.model(value)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ValueError, match=r"^the shape of val_0 is unknown$"):
        count_cost(ir.from_proto(model))
