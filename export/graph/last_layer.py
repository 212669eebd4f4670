"""A convolution with few output channels computes blocks of pixels instead.

Matches a convolution of stride 1 that keeps the size and has at most four output channels, of an image or of a doubled
one. Convolution kernels work on sixteen output channels at a time, so one channel wastes fifteen. It becomes a
convolution with up to sixteen channels, each for one pixel of a block (`export.graph.block_weights`), with a
stride of the block's size, and DepthToSpace. Taps that a pixel does not have are zeros, which add nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.block_weights import build_block_weights
from export.graph.nodes import find_undoubled, match_convolution, read_shape
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_block_outputs"]

_LANES: Final = 16
_MAX_CHANNELS: Final = 4


def make_block_outputs(model: ir.Model) -> int:
    """Turn convolutions with few outputs into such of blocks; return how many."""
    return apply_rules(model, {"Conv": _in_blocks})


def _in_blocks(write: Writer, node: ir.Node) -> ir.Value | None:
    found, shape = match_convolution(node), read_shape(node.outputs[0])
    if found is None or not found.keeps_size or len(found.weight) > _MAX_CHANNELS or shape is None:
        return None
    if found.is_pointwise:
        return None  # a block of pixels has no taps in common then, and all the zeros would be multiplied
    side = 4 if len(found.weight) * 16 <= _LANES else 2
    if any(axis is None or axis % side for axis in shape[2:]):
        return None
    small = find_undoubled(node.inputs[0])
    made = build_block_weights(
        found.weight,
        found.pads,
        upsampling=1 if small is None else 2,
        block=(side, side),
        rows=range(side),
        columns=range(side),
    )
    inputs = [
        node.inputs[0] if small is None else small,
        write.constant(made.weight, "block.weight"),
        write.constant(np.tile(found.bias, side * side), "block.bias"),
    ]
    size = made.weight.shape[2:]
    blocks = write.node("Conv", inputs, pads=made.pads, strides=made.strides, kernel_shape=size)
    return write.node("DepthToSpace", [blocks], blocksize=side, mode="DCR")
