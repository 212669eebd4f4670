"""Compute conditional norms by one operator, which needs the images of a batch one at a time.

Matches graphs with ``Add(Mul(x, factor), offset)`` (`export.graph.conditional_norms`) whose inputs and outputs have a
batch axis. All nodes that depend on the batch become the body of a ``Scan`` over it. There the batch is one, so

- a norm is a ``BatchNormalization`` whose factor and offset are computed: one pass over the image instead of two,
- all shapes are known, so ONNX Runtime adds the summands of residual blocks in place.

A batch of any size gives the images that its parts give alone, in the time and memory of one after another; larger
batches were slower before. Nodes that do not depend on the batch stay outside and run once. Weights become part of the
body: ONNX Runtime keeps its blocked layout only for constants of the same graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from export.graph.conditional_norms import match_conditional_norm
from export.graph.nodes import make_initializer, make_unique_name, read_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.graph.conditional_norms import ConditionalNorm

__all__ = ["compute_image_by_image"]


def compute_image_by_image(model: ir.Model) -> int:
    """Compute the images one at a time, and each norm by one operator; return the number of norms."""
    graph = model.graph
    norms = [norm for node in graph if (norm := match_conditional_norm(node)) is not None]
    batched = [value for value in graph.inputs if _is_batched(value)]
    inside = _find_dependents(graph, batched)
    if not norms or not all(_is_batched(each) and each.producer() in inside for each in graph.outputs):
        return 0
    for norm in norms:
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


def _write_batch_norm(graph: ir.Graph, norm: ConditionalNorm) -> set[ir.Node]:
    """Replace a norm by a batch norm, which is right for a batch of one; return the new nodes."""
    node, result = norm.total, norm.total.outputs[0]
    channels = (read_shape(norm.factor) or ())[1] or 0
    constants = {"flat": np.array([-1], np.int64), "zeros": np.zeros(channels, np.float32)}
    constants["ones"] = np.ones(channels, np.float32)
    flat, zeros, ones = (_add_constant(graph, make_unique_name(node, key), each) for key, each in constants.items())
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


def _add_constant(graph: ir.Graph, name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
    value = make_initializer(name, values)
    graph.register_initializer(value)
    return value


def _scan(graph: ir.Graph, batched: list[ir.Value], inside: list[ir.Node]) -> None:
    """Move nodes into the body of a Scan over the batch."""
    first = make_initializer("first axis", np.array([0], np.int64))
    rows = [ir.Value(name=f"{each.name}.row", shape=ir.Shape(each.shape[1:]), type=each.type) for each in batched]
    spread = [ir.node("Unsqueeze", [row, first]) for row in rows]
    for value, row, node in zip(batched, rows, spread, strict=True):
        for user, index in list(value.uses()):
            user.replace_input_with(index, node.outputs[0])
        node.outputs[0].name = f"{row.name}s"
        node.outputs[0].shape, node.outputs[0].type = ir.Shape([1, *row.shape]), row.type
    graph.remove(inside)
    images = list(graph.outputs)
    squeezed = [ir.node("Squeeze", [each, first]) for each in images]
    names = [each.name for each in images]
    shapes = [each.shape for each in images]
    for value, node, name in zip(images, squeezed, names, strict=True):
        value.name, node.outputs[0].name = f"{name}.one", f"{name}.row"
        node.outputs[0].shape, node.outputs[0].type = ir.Shape(value.shape[1:]), value.type
    for value in (output for node in inside for output in node.outputs):
        if _is_batched(value):
            value.shape = ir.Shape([1, *value.shape[1:]])
    nodes = [*spread, *inside, *squeezed]
    body = ir.Graph(rows, [node.outputs[0] for node in squeezed], nodes=nodes, name="image")
    body.register_initializer(first)
    _move_constants(graph, body)
    attributes = {"body": body, "num_scan_inputs": len(batched)}
    scan = ir.node("Scan", batched, attributes, num_outputs=len(images))
    graph.append(scan)
    for number, value in enumerate(scan.outputs):
        value.name, value.shape, value.type = names[number], shapes[number], images[number].type
        graph.outputs[number] = value


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
