"""A convolution adds to a sum instead of being added to it.

Matches ``Add(Conv(x), z)`` of equal shapes where nothing else uses the convolution's result. It becomes ONNX Runtime's own
``com.microsoft.FusedConv``, which takes z as a fourth input: the sum starts at z, and an image less is written and read.
For the CPU alone, where ONNX Runtime finds this form by itself only if it can prove that the shapes agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from export.graph.nodes import convolution, have_equal_shapes, only_use
from export.graph.rules import Writer, rewritten

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MICROSOFT", "fuse_sums"]

MICROSOFT: Final = "com.microsoft"
"""Domain of the operators that ONNX Runtime has beyond ONNX."""


def fuse_sums(model: ir.Model) -> int:
    """Fuse sums into the convolutions before them; return how many."""
    return rewritten(model, {"Add": _fused})


def _fused(write: Writer, node: ir.Node) -> ir.Value | None:
    first, second = node.inputs
    for convolved, other in ((first, second), (second, first)):
        found = None if convolved is None else convolution(convolved.producer())
        if convolved is None or found is None or only_use(convolved) is None:
            continue
        if not have_equal_shapes(convolved, other):
            continue
        bias = found.node.inputs[2] if len(found.node.inputs) > 2 else write.constant(found.bias, "bias")
        inputs = [*found.node.inputs[:2], bias, other]
        return write.node("FusedConv", inputs, found.node.attributes, domain=MICROSOFT)
    return None
