"""Let ONNX Runtime compute the sums of residual blocks in its blocked layout.

Matches ``Add(Conv(x), y)``, where y is a ``Slice`` or ``Reshape``, or a nearest upsampling by 2 of one. ONNX Runtime's
CPU kernels store images in blocks of channels, and add y while they convolve x, if y is stored so too. A slice is not,
and a sum that is not makes later ones not so either. The pass convolves y with a 1 x 1 depthwise kernel of ones, which
copies it into the blocked layout, before the upsampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.nodes import find_before_upsampling, find_only_user, have_equal_shapes, match_convolution, read_shape
from export.graph.norms_of_sums import write_upsampled
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_blocked_sums"]

_UNBLOCKED: Final = frozenset({"Slice", "Reshape"})
"""Operators whose results ONNX Runtime does not store in blocks."""


def make_blocked_sums(model: ir.Model) -> int:
    """Copy such summands into the blocked layout; return their number."""
    return apply_rules(model, {"Add": _block})


def _block(write: Writer, node: ir.Node) -> ir.Value | None:
    for convolved, other in (node.inputs, reversed(node.inputs)):
        found = None if convolved is None or find_only_user(convolved) is None else convolved.producer()
        if convolved is None or other is None or match_convolution(found) is None:
            continue
        small = find_before_upsampling(other)
        unblocked = other if small is None else small
        producer, shape = unblocked.producer(), read_shape(unblocked)
        if producer is None or producer.op_type not in _UNBLOCKED or shape is None or not shape[1]:
            continue
        if have_equal_shapes(convolved, other):
            return write.node("Add", [convolved, _write_blocked(write, other, unblocked, shape[1])])
    return None


def _write_blocked(write: Writer, summand: ir.Value, unblocked: ir.Value, channels: int) -> ir.Value:
    ones = write.constant(np.ones((channels, 1, 1, 1), np.float32), "ones")
    blocked = write.node("Conv", [unblocked, ones], group=channels, kernel_shape=(1, 1))
    return blocked if summand is unblocked else write_upsampled(write, blocked, summand)
