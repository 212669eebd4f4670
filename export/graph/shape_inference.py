"""Infers types and shapes by onnx, in place.

onnx_ir has a pass for that. It reads the whole graph back that onnx writes, which takes most of the time of all passes
over a small graph. Here only the values whose type or shape onnx found or changed are read.
"""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, Final

import onnx
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["infer_shapes"]

_LARGE_BYTES: Final = 1000
"""Larger initializers give no other value its shape: onnx need not read them."""
_logger = logging.getLogger(__name__)


def infer_shapes(model: ir.Model) -> None:
    """Infer the types and shapes of all values of a model, as far as onnx knows them.

    A model whose types contradict each other keeps those that it has.

    Parameters
    ----------
    model : ir.Model
        Changed in place. Its large initializers become the last ones.
    """
    given = _write_without_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(given, check_type=True, strict_mode=False, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        _logger.warning("no shapes were inferred: %s", error)
        return
    _update_values(model.graph, given.graph, inferred.graph)


def _write_without_weights(model: ir.Model) -> onnx.ModelProto:
    """Write a model whose initializers are inputs too: they have types and shapes where their values are left out."""
    graph = model.graph
    initializers, inputs = list(graph.initializers.values()), list(graph.inputs)
    tensors = [each.const_value for each in initializers]
    for each, tensor in zip(initializers, tensors, strict=True):
        if tensor is not None:
            each.shape = ir.Shape(tensor.numpy().shape) if each.shape is None else each.shape
            each.dtype = tensor.dtype if each.dtype is None else each.dtype
        if not each.is_graph_input():
            graph.inputs.append(each)
        if tensor is None or tensor.nbytes > _LARGE_BYTES:
            graph.initializers.pop(str(each.name))
            each.const_value = None
    try:
        return ir.to_proto(model)
    finally:
        for each, tensor in zip(initializers, tensors, strict=True):
            each.const_value = tensor
            graph.initializers.add(each)
        graph.inputs.clear()
        graph.inputs.extend(inputs)


def _update_values(graph: ir.Graph, given: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    """Set the types and shapes that onnx found in a graph and in the bodies of its nodes."""
    types = {each.name: each.type for each in _iterate_infos(given)}
    found = {each.name: each for each in _iterate_infos(inferred) if types.get(each.name) != each.type}
    if found:
        values = chain(graph.inputs, graph.initializers.values(), *(node.outputs for node in graph))
        for value in values:
            if value.name in found:
                _update_value(value, found[value.name])
    for node, *protos in zip(graph, given.node, inferred.node, strict=True):
        bodies = {each.name: each.value for each in node.attributes.values() if each.type == ir.AttributeType.GRAPH}
        if bodies:
            before, after = ({each.name: each.g for each in proto.attribute} for proto in protos)
            for name, body in bodies.items():
                _update_values(body, before[name], after[name])


def _iterate_infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    return chain(graph.input, graph.value_info, graph.output)


def _update_value(value: ir.Value, found: onnx.ValueInfoProto) -> None:
    read = ir.serde.deserialize_value_info_proto(found, None)
    if read.shape is not None and value.shape != read.shape:
        value.shape = read.shape
    if read.dtype is not None and value.dtype != read.dtype:
        value.dtype = read.dtype
