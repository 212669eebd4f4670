"""Computes the images of a float16 graph as a GPU does, on the CPU: the result of each node is rounded to float16.

ONNX Runtime computes nodes in float16 on a CPU by float32 and removes the casts that it inserts for that, so that
inputs and weights alone are rounded. Here the graph itself is in float32, with a cast to float16 and back after each
node. ONNX Runtime keeps the casts of a graph. Convolutions and products of matrices add in float32, as on a GPU. A GPU
rounds a convolution before it adds the bias, and rounds the sum again. Without the first rounding, more digits agree
with float32's than on a GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from export.errors import GraphError
from export.graph.nodes import make_initializer
from export.inference import open_session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from export.families import Feed

__all__ = ["compute_float16_images"]

_SELECTING: Final = frozenset(
    {
        *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Relu", "Reshape", "Slice"),
        *("Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""Operators whose results are values of their inputs, or zero: float16 holds them as they are."""
_EXTREMES: Final = ("ReduceMax", "ReduceMin")


def compute_float16_images(graph: onnx.ModelProto, feeds: Iterable[Feed]) -> Iterator[NDArray[np.float32]]:
    """Run a float16 graph of one output batch by batch, with the result of each node rounded to float16.

    Raises
    ------
    GraphError
        If a result is too large for float16.
    """
    rounding, names = _round_results(graph)
    session = open_session(rounding)
    for feed in feeds:
        images, *extremes = session.run(None, feed)
        _check_range(names, extremes)
        yield images


def _round_results(graph: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Write a float16 graph in float32, with rounded results.

    Returns
    -------
    onnx.ModelProto
        Its further outputs are the largest and the smallest value of each result before rounding.
    list of str
        Names of these results.
    """
    model = ir.from_proto(graph)
    _add_biases_apart(model.graph)
    common_passes.ShapeInferencePass(check_type=True, strict_mode=False, data_prop=True)(model)
    names: list[str] = []
    for weights in model.graph.initializers.values():
        if weights.dtype == ir.DataType.FLOAT16 and weights.const_value is not None:
            weights.const_value = ir.tensor(weights.const_value.numpy().astype(np.float32), name=weights.name)
            weights.dtype = ir.DataType.FLOAT
    for node in list(model.graph):
        if node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        for result in node.outputs:
            if result.dtype == ir.DataType.FLOAT16:
                result.dtype = ir.DataType.FLOAT
                if node.op_type not in _SELECTING:
                    _round_result(model.graph, node, result)
                    names.append(str(result.name))
    return ir.to_proto(model), names


def _add_biases_apart(graph: ir.Graph) -> None:
    """Add the biases of convolutions by nodes of their own."""
    for node in list(graph):
        if node.op_type != "Conv" or len(node.inputs) < 3 or (bias := node.inputs[2]) is None:
            continue
        weight, convolved = node.inputs[1], node.outputs[0]
        n_axes = 2 if weight is None or weight.shape is None else len(weight.shape) - 2
        shape = make_initializer(f"{convolved.name}.channels", np.array([-1] + [1] * n_axes))
        graph.register_initializer(shape)
        node.resize_inputs(2)
        uses = list(convolved.uses())
        column = ir.node("Reshape", [bias, shape])
        total = ir.node("Add", [convolved, column.outputs[0]])
        for use in uses:
            use.node.replace_input_with(use.idx, total.outputs[0])
        graph.insert_after(node, [column, total])


def _round_result(graph: ir.Graph, node: ir.Node, result: ir.Value) -> None:
    uses = list(result.uses())
    rounded = ir.node("Cast", [result], {"to": ir.DataType.FLOAT16})
    back = ir.node("Cast", rounded.outputs, {"to": ir.DataType.FLOAT})
    for use in uses:
        use.node.replace_input_with(use.idx, back.outputs[0])
    extremes = [ir.node(operator, [result], {"keepdims": 0}) for operator in _EXTREMES]
    graph.insert_after(node, [rounded, back, *extremes])
    for extreme in extremes:
        (value,) = extreme.outputs
        value.shape, value.dtype = ir.Shape([]), ir.DataType.FLOAT
        graph.outputs.append(value)


def _check_range(names: Sequence[str], extremes: Sequence[NDArray[np.float32]]) -> None:
    for name, largest, smallest in zip(names, extremes[::2], extremes[1::2], strict=True):
        reached = np.maximum(largest, -smallest)
        with np.errstate(over="ignore"):
            is_held = np.isfinite(reached.astype(np.float16))
        if not is_held:
            message = f"float16 cannot hold the values {name}, which reach {reached:.3g}: export in float32."
            raise GraphError(message)
