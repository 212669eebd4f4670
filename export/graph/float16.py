"""Weights and activations in float16; inputs and outputs stay float32.

Every float32 constant and value becomes float16, with a cast after the inputs and one before the last pointwise
operator: the tanh, which decides the charge, is evaluated in float32. ONNX requires float32 for the parameters of
Resize.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from export.errors import GraphError
from export.graph.nodes import POINTWISE, make_initializer, read_constant

if TYPE_CHECKING:
    import onnx

__all__ = ["convert_to_float16"]

_PARAMETERS_START: Final = {"Resize": 1}
"""Operators whose inputs from this index on are parameters, not images."""


def convert_to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a float32 graph to float16.

    Raises
    ------
    GraphError
        If a weight is too large for float16.
    """
    converted_model = ir.from_proto(model)
    common_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(converted_model)
    graph = converted_model.graph
    converted: dict[str, ir.Value] = {}
    for node in list(graph):
        for index, value in enumerate(node.inputs):
            is_image = index < _PARAMETERS_START.get(node.op_type, len(node.inputs))
            if value is not None and is_image and value.dtype == ir.DataType.FLOAT and value.producer() is None:
                name = str(value.name)
                if name not in converted:
                    converted[name] = (
                        _cast_input(graph, value) if value.is_graph_input() else _convert_weights(graph, value)
                    )
                node.replace_input_with(index, converted[name])
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.dtype = ir.DataType.FLOAT16
    for output in graph.outputs:
        _cast_back(graph, output)
    for name in converted:
        if name in graph.initializers and not graph.initializers[name].uses():
            del graph.initializers[name]
    return ir.to_proto(converted_model)


def _convert_weights(graph: ir.Graph, value: ir.Value) -> ir.Value:
    weights = read_constant(value)
    if weights is None:
        message = f"The value {value.name} has no producer and is no constant."
        raise GraphError(message)
    with np.errstate(over="ignore"):
        half = weights.astype(np.float16)
    if not np.isfinite(half).all():
        message = (
            f"float16 cannot hold the weights {value.name}, which reach {np.abs(weights).max():.3g}: export in float32."
        )
        raise GraphError(message)
    converted = make_initializer(f"{value.name}.half", half)
    graph.register_initializer(converted)
    return converted


def _cast_input(graph: ir.Graph, value: ir.Value) -> ir.Value:
    node = _cast(value, ir.DataType.FLOAT16, f"{value.name}.half")
    graph.insert_before(graph[0], node)
    return node.outputs[0]


def _cast_back(graph: ir.Graph, output: ir.Value) -> None:
    """Cast to float32 before the pointwise operator that computes an output, or else after it."""
    last = output.producer()
    if last is None or output.dtype != ir.DataType.FLOAT16:
        return
    if last.op_type in POINTWISE and last.inputs[0] is not None and not output.uses():
        node = _cast(last.inputs[0], ir.DataType.FLOAT, f"{output.name}.float")
        graph.insert_before(last, node)
        last.replace_input_with(0, node.outputs[0])
        output.dtype = ir.DataType.FLOAT
        return
    name = str(output.name)
    output.name = f"{name}.half"
    node = _cast(output, ir.DataType.FLOAT, name)
    graph.append(node)
    graph.outputs[graph.outputs.index(output)] = node.outputs[0]


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(to)})
    output = node.outputs[0]
    output.name, output.shape, output.dtype = name, value.shape, to
    return node
