"""Choose between no bias and a bias of zeros, which cuDNN computes with different kernels.

In float16 with channels last, ONNX Runtime 1.31.1 takes 0.43 ms an event on an H200 for a 1 x 1 convolution from 16 to
64 channels at 128 x 384 pixels without a bias, and 0.15 ms with one of zeros; for a 3 x 3 convolution of 32 channels
there, 0.19 and 0.34 ms. docs/performance.md has the times of whole graphs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.graph.nodes import make_initializer, make_unique_name, match_convolution

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["choose_zero_biases"]


def choose_zero_biases(model: ir.Model) -> int:
    """Give 1 x 1 convolutions without a bias zeros, and take zeros from larger kernels; return the number changed."""
    return sum(_choose(model.graph, node) for node in model.graph)


def _choose(graph: ir.Graph, node: ir.Node) -> bool:
    found = match_convolution(node)
    if found is None or found.groups != 1 or found.bias.any():
        return False
    wants_bias, has_bias = found.weight.shape[2:] == (1, 1), len(node.inputs) > 2 and node.inputs[2] is not None
    if wants_bias is has_bias:
        return False
    if wants_bias:
        zeros = make_initializer(make_unique_name(node, "zeros"), np.zeros(len(found.weight), np.float32))
        graph.register_initializer(zeros)
        node.resize_inputs(3)
        node.replace_input_with(2, zeros)
    else:
        node.resize_inputs(2)
    return True
