"""Compose a linear layer with the convolution after it.

Matches ``Conv(Reshape(Gemm(z)))`` whose inner values nothing else uses. It becomes ``Reshape(Gemm(z))``: the
convolution is linear, so it is applied to each column of the weight matrix and to the bias. The pass applies where it
saves multiply-accumulates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from export.convolution import convolve
from export.graph.nodes import find_only_user, match_convolution, match_linear_layer, read_shape
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from export.graph.nodes import Convolution, LinearLayer

__all__ = ["compose_linear_layers"]


def compose_linear_layers(model: ir.Model) -> int:
    """Compose linear layers with the convolutions after them; return their number."""
    return apply_rules(model, {"Conv": _compose})


def _compose(write: Writer, node: ir.Node) -> ir.Value | None:
    found, images = match_convolution(node), node.inputs[0]
    reshape = None if images is None else images.producer()
    if (
        found is None
        or images is None
        or find_only_user(images) is None
        or reshape is None
        or reshape.op_type != "Reshape"
    ):
        return None
    flat = reshape.inputs[0]
    layer = None if flat is None or find_only_user(flat) is None else match_linear_layer(flat.producer())
    shape, after = read_shape(images), read_shape(node.outputs[0])
    if layer is None or shape is None or after is None or len(shape) != 4 or None in (*shape[1:], *after[1:]):
        return None
    n_after = int(np.prod([axis or 1 for axis in after[1:]]))
    n_outputs, n_latents = layer.weight.shape
    if int(np.prod([axis or 1 for axis in shape[1:]])) != n_outputs:
        return None
    if n_latents * n_after >= n_latents * n_outputs + n_after * found.weight[0].size:
        return None
    columns = _convolve_columns(layer, found, [axis or 1 for axis in shape[1:]])
    flattened = columns.reshape(len(columns), -1).astype(np.float32)
    inputs = [layer.node.inputs[0], write.constant(flattened[:-1].T, "weight"), write.constant(flattened[-1], "bias")]
    product = write.node("Gemm", inputs, transB=1)
    return write.node("Reshape", [product, write.constant(np.array([0, *columns.shape[1:]], np.int64), "shape")])


def _convolve_columns(layer: LinearLayer, found: Convolution, shape: list[int]) -> NDArray[np.float64]:
    """Convolve the columns of a linear layer's weights, and its bias as the last column, in float64."""
    columns = np.concatenate([layer.weight.T, layer.bias[np.newaxis]]).astype(np.float64).reshape(-1, *shape)
    top, left, bottom, right = found.pads
    convolved: NDArray[np.float64] = convolve(
        torch.nn.functional.pad(torch.from_numpy(columns), (left, right, top, bottom)),
        torch.from_numpy(found.weight.astype(np.float64)),
        stride=found.strides,
        dilation=found.dilations,
        groups=found.groups,
    ).numpy()
    convolved[-1] += found.bias.astype(np.float64)[:, np.newaxis, np.newaxis]
    return convolved
