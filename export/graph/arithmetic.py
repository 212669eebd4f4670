"""The cost of a graph for one image, from the shapes of its values: multiply-accumulates and bytes moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import onnx
import onnx_ir as ir

from export.graph.nodes import read_shape

__all__ = ["Cost", "count_cost", "count_multiply_accumulates"]

_CONVOLUTIONS: Final = {"Conv": 1, "QLinearConv": 3}
"""Operators whose output elements are sums over a filter, and the index of the input that holds the filters."""
_MATRIX_PRODUCTS: Final = frozenset({"Gemm", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"})
_FREE: Final = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Constant", "Flatten"})
"""Operators that move no bytes."""
_LOOPS: Final = frozenset({"Scan"})
"""Operators whose cost is that of their body, run once for one image."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one image.

    Attributes
    ----------
    multiply_accumulates : int
    bytes_moved : int
        Bytes that all nodes read and write, weights included, as if there were no cache.
    weight_bytes : int
        Bytes of all constants.
    """

    multiply_accumulates: int
    bytes_moved: int
    weight_bytes: int


def count_multiply_accumulates(model: onnx.ModelProto) -> int:
    """Count the multiply-accumulates of one image."""
    # Graph files do not name the shapes of the weights that they restore from a table.
    return count_cost(ir.from_proto(onnx.shape_inference.infer_shapes(model))).multiply_accumulates


def count_cost(model: ir.Model) -> Cost:
    """Count the cost of one image.

    Raises
    ------
    ValueError
        If the number of axes of a value is unknown. An axis of any size, such as the batch, counts as 1.
    """
    products = moved = 0
    for node in model.graph.all_nodes():
        if node.op_type in _LOOPS:
            continue
        products += _count_products(node)
        if node.op_type not in _FREE:
            moved += sum(_count_bytes(value) for value in (*node.inputs, *node.outputs) if value is not None)
    graphs = (model.graph, *model.graph.subgraphs())
    weights = sum(_count_bytes(value) for graph in graphs for value in graph.initializers.values())
    return Cost(multiply_accumulates=products, bytes_moved=moved, weight_bytes=weights)


def _count_products(node: ir.Node) -> int:
    n_outputs = _count_elements(node.outputs[0])
    if node.op_type in _CONVOLUTIONS:
        filters = read_shape(node.inputs[_CONVOLUTIONS[node.op_type]]) or ()
        return n_outputs * math.prod(axis or 1 for axis in filters[1:])
    if node.op_type in _MATRIX_PRODUCTS:
        shape = read_shape(node.inputs[0]) or ()
        return n_outputs * (shape[-2 if node.attributes.get_int("transA", 0) else -1] or 1)
    return 0


def _count_elements(value: ir.Value) -> int:
    shape = read_shape(value)
    if shape is None:
        message = f"the shape of {value.name} is unknown"
        raise ValueError(message)
    return math.prod(axis or 1 for axis in shape)


def _count_bytes(value: ir.Value) -> int:
    return 0 if value.dtype is None else math.ceil(_count_elements(value) * value.dtype.itemsize)
