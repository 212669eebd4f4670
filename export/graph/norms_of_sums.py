"""Move a batch norm of a sum before the upsampling of a summand, where it costs a quarter.

Matches ``BatchNormalization(Add(Conv(x), Resize(y)))``, with constant parameters and a nearest upsampling by 2, whose
inner values nothing else uses. With factor a and offset b of a channel it becomes ``Add(Conv(x), Resize(a y))``: a and
b fold into the weights of the convolution, and the small image is multiplied by a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.graph.batch_norms import match_batch_norm
from export.graph.nodes import find_before_upsampling, find_only_user, have_equal_shapes, match_convolution
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

    from export.graph.batch_norms import ChannelAffine
    from export.graph.nodes import Convolution

__all__ = ["distribute_batch_norms", "write_upsampled"]


def distribute_batch_norms(model: ir.Model) -> int:
    """Move all such batch norms; return their number."""
    return apply_rules(model, {"BatchNormalization": _distribute})


def _distribute(write: Writer, node: ir.Node) -> ir.Value | None:
    affine, total = match_batch_norm(node), node.inputs[0]
    addition = None if total is None or find_only_user(total) is None else total.producer()
    if affine is None or addition is None or addition.op_type != "Add" or addition.domain != "":
        return None
    for convolved, upsampled in (addition.inputs, reversed(addition.inputs)):
        if convolved is None or upsampled is None or not have_equal_shapes(convolved, upsampled):
            continue
        found = None if find_only_user(convolved) is None else match_convolution(convolved.producer())
        small = None if find_only_user(upsampled) is None else find_before_upsampling(upsampled)
        if found is not None and small is not None:
            return write.node(
                "Add", [_write_scaled(write, found, affine), _write_small(write, upsampled, small, affine)]
            )
    return None


def _write_scaled(write: Writer, found: Convolution, affine: ChannelAffine) -> ir.Value:
    """Write the convolution with factor and offset in its weights."""
    weight = found.weight * affine.factor.reshape(-1, 1, 1, 1)
    bias = found.bias * affine.factor + affine.offset
    constants = [write.constant(weight.astype(np.float32), "weight"), write.constant(bias.astype(np.float32), "bias")]
    return write.node("Conv", [found.node.inputs[0], *constants], found.node.attributes)


def _write_small(write: Writer, upsampled: ir.Value, small: ir.Value, affine: ChannelAffine) -> ir.Value:
    """Write the small image times the factor, as a depthwise convolution, and its upsampling."""
    weight = affine.factor.astype(np.float32).reshape(-1, 1, 1, 1)
    scaled = write.node("Conv", [small, write.constant(weight, "factor")], group=len(weight), kernel_shape=(1, 1))
    return write_upsampled(write, scaled, upsampled)


def write_upsampled(write: Writer, small: ir.Value, like: ir.Value) -> ir.Value:
    """Upsample a small image as another one of the same shape is upsampled."""
    resize = like.producer()
    if resize is None:
        message = f"{like.name} is not upsampled"
        raise ValueError(message)
    result = write.node("Resize", [small, *resize.inputs[1:]], resize.attributes)
    # Shape inference does not know that a Resize keeps the batch, without which ONNX Runtime cannot fuse sums of it.
    result.shape, result.type = like.shape, like.type
    return result
