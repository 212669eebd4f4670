"""Sums fused into convolutions, which ONNX Runtime 1.21 to 1.26 computes wrongly on CPUs with AVX2 or AVX-512."""

from __future__ import annotations

import onnx
from onnx import helper

__all__ = ["fuse_sums"]


def fuse_sums(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace each sum of a convolution that has a bias, and of something else, by ``com.microsoft.FusedConv``."""
    fused = onnx.ModelProto()
    fused.CopyFrom(model)
    nodes = list(fused.graph.node)
    users = [name for node in nodes for name in node.input]
    convolutions = {
        node.output[0]: node
        for node in nodes
        if node.op_type == "Conv" and len(node.input) == 3 and users.count(node.output[0]) == 1
    }
    used: set[str] = set()
    written = []
    for node in nodes:
        summed = next((name for name in node.input if name in convolutions), None) if node.op_type == "Add" else None
        if summed is None:
            written.append(node)
            continue
        convolution = convolutions[summed]
        (other,) = (name for name in node.input if name != summed)
        new = helper.make_node("FusedConv", [*convolution.input, other], node.output, domain="com.microsoft")
        new.attribute.extend(convolution.attribute)
        written.append(new)
        used.add(summed)
    del fused.graph.node[:]
    fused.graph.node.extend(node for node in written if node.output[0] not in used)
    fused.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return fused
