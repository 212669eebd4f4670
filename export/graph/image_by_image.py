"""Compute conditional norms by one operator, which needs the images of a batch one at a time.

Matches graphs with ``Add(Mul(x, factor), offset)`` (`export.graph.conditional_norms`) whose images do not depend on
each other. All nodes that depend on the batch become the body of a ``Scan`` over it. There the batch is one, so

- a norm is a ``BatchNormalization`` whose factor and offset are computed: one pass over the image instead of two,
- all shapes are known, so ONNX Runtime adds the summands of residual blocks in place.

A batch of any size gives the images that its parts give alone, in the time and memory of one after another; larger
batches were slower before. Nodes that do not depend on the batch stay outside and run once. Weights become part of the
body: ONNX Runtime keeps its blocked layout only for constants of the same graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

from export.graph.conditional_norms import match_conditional_norm
from export.graph.nodes import POINTWISE, make_initializer, make_unique_name, read_constant, read_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from export.graph.conditional_norms import ConditionalNorm

__all__ = ["compute_image_by_image"]

_BY_IMAGE: Final = POINTWISE | {
    *("Add", "BatchNormalization", "Cast", "Concat", "Conv", "DepthToSpace", "Gather", "GatherND", "Gemm", "Mul"),
    *("Reshape", "Resize", "Slice", "Split", "Transpose", "Unsqueeze"),
}
"""Operators that treat each image of a batch by itself if the first axis of their results is the batch.

Some do so along other axes only, or with a table: `_treats_images_apart`.
"""


def compute_image_by_image(model: ir.Model) -> int:
    """Compute the images one at a time, and each norm by one operator; return the number of norms."""
    graph = model.graph
    norms = [node for node in graph if match_conditional_norm(node) is not None]
    batched = [value for value in graph.inputs if _is_batched(value)]
    inside = _find_dependents(graph, batched)
    dependent = {*batched, *(value for node in inside for value in node.outputs)}
    is_separable = all(_treats_images_apart(node, dependent) for node in inside)
    is_same_batch = len({str(each.shape[0]) for each in batched if each.shape is not None}) == 1
    if not norms or not is_separable or not is_same_batch:
        return 0
    if not all(each.producer() in inside for each in graph.outputs):
        return 0
    for node in norms:
        norm = match_conditional_norm(node)  # again: its image may be the result of a norm that was replaced
        if norm is not None:
            inside |= _write_batch_norm(graph, norm)
    _scan(graph, batched, [node for node in graph if node in inside])
    return len(norms)


def _is_batched(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int)


def _find_dependents(graph: ir.Graph, values: Sequence[ir.Value]) -> set[ir.Node]:
    """Find the nodes that depend on values."""
    dependent, found = set(values), set()
    for node in graph:
        if any(each in dependent for each in node.inputs):
            found.add(node)
            dependent.update(node.outputs)
    return found


def _treats_images_apart(node: ir.Node, dependent: set[ir.Value]) -> bool:
    """Whether a node treats each image by itself; `dependent` are the values that depend on the batch."""
    if node.op_type not in _BY_IMAGE or not all(map(_is_batched, node.outputs)):
        return False
    attributes, rank = node.attributes, len(read_shape(node.inputs[0]) or ())
    if node.op_type == "GatherND":
        return node.inputs[0] not in dependent
    if node.op_type == "Gather":
        is_along_batch = attributes.get_int("axis", 0) in {0, -rank}
        return node.inputs[0 if is_along_batch else 1] not in dependent
    if node.op_type in {"Concat", "Split"}:
        return attributes.get_int("axis", 0) not in {0, -rank}
    if node.op_type == "Slice":
        axes = read_constant(node.inputs[3]) if len(node.inputs) > 3 else None
        return axes is not None and not {0, -rank} & set(axes.tolist())
    return True


def _write_batch_norm(graph: ir.Graph, norm: ConditionalNorm) -> set[ir.Node]:
    """Replace a norm by a batch norm, which is right for a batch of one; return the new nodes."""
    node, result = norm.total, norm.total.outputs[0]
    channels = (read_shape(norm.factor) or ())[1] or 0
    flat = _add_constant(graph, make_unique_name(node, "flat"), np.array([-1], np.int64))
    zeros = _add_constant(graph, make_unique_name(node, "zeros"), np.zeros(channels, np.float32))
    ones = _add_constant(graph, make_unique_name(node, "ones"), np.ones(channels, np.float32))
    factor, offset = (ir.node("Reshape", [each, flat]) for each in (norm.factor, norm.offset))
    inputs = [norm.image, factor.outputs[0], offset.outputs[0], zeros, ones]
    replacement = ir.node("BatchNormalization", inputs, {"epsilon": 0.0})
    graph.insert_before(node, [factor, offset, replacement])
    new = replacement.outputs[0]
    new.shape, new.type = result.shape, result.type
    result.replace_all_uses_with(new, replace_graph_outputs=True)
    name, result.name = result.name, f"{result.name}.sum"
    graph.remove(node, safe=True)
    new.name = name
    return {factor, offset, replacement}


def _add_constant(graph: ir.Graph, name: str, values: NDArray[np.generic]) -> ir.Value:
    value = make_initializer(name, values)
    graph.register_initializer(value)
    return value


def _scan(graph: ir.Graph, batched: list[ir.Value], inside: list[ir.Node]) -> None:
    """Move nodes into the body of a Scan over the batch."""
    axis = make_initializer("first_axis", np.array([0], np.int64))
    outputs = list(graph.outputs)
    rows = [ir.Value(name=f"{each.name}.row", shape=_drop_batch(each), type=each.type) for each in batched]
    unpacked = [ir.node("Unsqueeze", [row, axis]) for row in rows]
    for value, node in zip(batched, unpacked, strict=True):
        value.replace_all_uses_with(node.outputs[0])
        _describe(node.outputs[0], f"{value.name}.one", ir.Shape([1, *_drop_batch(value)]), value)
    packed = [ir.node("Squeeze", [each, axis]) for each in outputs]
    scan = ir.node("Scan", batched, num_outputs=len(outputs))
    for number, (value, node, result) in enumerate(zip(outputs, packed, scan.outputs, strict=True)):
        _describe(result, value.name, value.shape, value)
        _describe(node.outputs[0], f"{value.name}.row", _drop_batch(value), value)
        value.name = f"{value.name}.one"
        graph.outputs[number] = result
    for value in (output for node in inside for output in node.outputs):
        if _is_batched(value):
            value.shape = ir.Shape([1, *_drop_batch(value)])
    graph.remove(inside)
    nodes = [*unpacked, *inside, *packed]
    body = ir.Graph(rows, [node.outputs[0] for node in packed], nodes=nodes, initializers=[axis], name="image")
    scan.attributes["body"] = ir.AttrGraph("body", body)
    scan.attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", len(batched))
    graph.append(scan)
    _move_constants(graph, body)


def _drop_batch(value: ir.Value) -> ir.Shape:
    return ir.Shape([] if value.shape is None else value.shape[1:])


def _describe(value: ir.Value, name: str | None, shape: ir.Shape | None, like: ir.Value) -> None:
    value.name, value.shape, value.type = name, shape, like.type


def _move_constants(graph: ir.Graph, body: ir.Graph) -> None:
    """Move the constants that only the body uses into it, and copy those that others use too."""
    for value in list(graph.initializers.values()):
        uses = list(value.uses())
        inner = [use for use in uses if use.node.graph is body]
        if len(inner) == len(uses) and not value.is_graph_output():
            del graph.initializers[str(value.name)]
            body.register_initializer(value)
        elif inner and value.const_value is not None:
            copied = make_initializer(f"{value.name}.row", value.const_value.numpy())
            body.register_initializer(copied)
            for node, index in inner:
                node.replace_input_with(index, copied)
