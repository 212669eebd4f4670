"""Let a convolution with few output channels compute blocks of pixels.

Matches a convolution of stride 1 that keeps the size and has at most four output channels, of an image or of an
upsampled one. Convolution kernels compute sixteen output channels at a time, so one channel wastes fifteen. It becomes
a convolution with up to sixteen channels, one for each pixel of a block (`export.graph.block_weights`), with a stride
of the block's size, and DepthToSpace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.block_weights import build_block_weights
from export.graph.nodes import find_before_upsampling, match_convolution, read_shape
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_block_outputs"]

_LANES: Final = 16
_MAX_CHANNELS: Final = 4


def make_block_outputs(model: ir.Model) -> int:
    """Rewrite convolutions with few output channels; return their number."""
    return apply_rules(model, {"Conv": _rewrite_in_blocks})


def _rewrite_in_blocks(write: Writer, node: ir.Node) -> ir.Value | None:
    found, shape = match_convolution(node), read_shape(node.outputs[0])
    if found is None or not found.keeps_size or len(found.weight) > _MAX_CHANNELS or shape is None:
        return None
    if found.is_pointwise:
        return None  # pixels share no input then: the block would multiply zeros
    side = 4 if len(found.weight) * 16 <= _LANES else 2
    if any(axis is None or axis % side for axis in shape[2:]):
        return None
    small = find_before_upsampling(node.inputs[0])
    blocks = build_block_weights(
        found.weight,
        found.pads,
        upsampling=1 if small is None else 2,
        block=(side, side),
        rows=range(side),
        columns=range(side),
    )
    inputs = [
        node.inputs[0] if small is None else small,
        write.constant(blocks.weight, "block.weight"),
        write.constant(np.tile(found.bias, side * side), "block.bias"),
    ]
    size = blocks.weight.shape[2:]
    convolved = write.node("Conv", inputs, pads=blocks.pads, strides=blocks.strides, kernel_shape=size)
    return write.node("DepthToSpace", [convolved], blocksize=side, mode="DCR")
