"""Store large weights of few different values in one byte each; ONNX Runtime restores them when it loads the graph.

A weight of up to 256 different values becomes a table of them and one index a weight: ``Gather(table, Cast(indices))``.
ONNX Runtime folds these constants, so the numbers and the time of an image stay the same. Weights of trained generators
have more values and stay as they are; those of the stand-ins, which are sums of few numbers, take a quarter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["store_compactly"]

_MIN_BYTES: Final = 1_000_000
_MAX_VALUES: Final = 256
_SAMPLE: Final = 4096
_FLOATS: Final = (TensorProto.FLOAT, TensorProto.FLOAT16)


def store_compactly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with its large float weights of at most 256 different values stored as indices of a table."""
    compact = onnx.ModelProto()
    compact.CopyFrom(model)
    for graph in _list_graphs(compact.graph):
        nodes = []
        for tensor in graph.initializer:
            if tensor.data_type in _FLOATS and tensor.ByteSize() >= _MIN_BYTES:
                nodes += _store(graph, tensor)
        for node in reversed(nodes):
            graph.node.insert(0, node)
    return compact


def _list_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """List a graph and the bodies of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _list_graphs(attribute.g)


def _store(graph: onnx.GraphProto, tensor: onnx.TensorProto) -> list[onnx.NodeProto]:
    """Replace an initializer by a table and indices; return the nodes that restore it, none if it stays as it is."""
    values = numpy_helper.to_array(tensor)
    # By bits, so that a zero keeps its sign.
    bits = values.view(f"u{values.itemsize}")
    # Trained weights already have too many different values among a few thousand.
    if len(np.unique(bits.ravel()[:_SAMPLE])) > _MAX_VALUES or len(table := np.unique(bits)) > _MAX_VALUES:
        return []
    name = tensor.name
    indices = np.searchsorted(table, bits).astype(np.uint8)
    tensor.CopyFrom(numpy_helper.from_array(indices, f"{name}.indices"))
    graph.initializer.append(numpy_helper.from_array(table.view(values.dtype), f"{name}.table"))
    return [
        helper.make_node("Cast", [f"{name}.indices"], [f"{name}.wide"], to=TensorProto.INT32),
        helper.make_node("Gather", [f"{name}.table", f"{name}.wide"], [name]),
    ]
