"""Work on a doubled image moves to the small one, where it costs a quarter.

Matches a pointwise operator, a convolution of single pixels, or a sum, of images that a nearest doubling made. It
becomes the doubling of the operator's result on the small images. Doubling only copies pixels, and these operators
treat each pixel by itself, so the same numbers come out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.nodes import POINTWISE, find_undoubled, have_equal_shapes, match_convolution
from export.graph.rules import Writer, apply_rules_to_fixpoint

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["move_before_upsampling"]


def move_before_upsampling(model: ir.Model) -> int:
    """Move work before doublings until none is left to move; return how often."""
    rules = {"Conv": _convolved_early, "Add": _added_early, **dict.fromkeys(sorted(POINTWISE), _done_early)}
    return apply_rules_to_fixpoint(model, rules)


def _convolved_early(write: Writer, node: ir.Node) -> ir.Value | None:
    found = match_convolution(node)
    return None if found is None or not found.is_pointwise else _done_early(write, node)


def _done_early(write: Writer, node: ir.Node) -> ir.Value | None:
    image = node.inputs[0]
    small = find_undoubled(image)
    if image is None or small is None:
        return None
    return _doubled_again(write, write.node(node.op_type, [small, *node.inputs[1:]], node.attributes), image)


def _added_early(write: Writer, node: ir.Node) -> ir.Value | None:
    first, second = node.inputs
    small = find_undoubled(first), find_undoubled(second)
    if first is None or None in small or not have_equal_shapes(first, second):
        return None
    return _doubled_again(write, write.node("Add", small), first)


def _doubled_again(write: Writer, small: ir.Value, image: ir.Value) -> ir.Value | None:
    """Double an image in the way that another was doubled."""
    resize = image.producer()
    return None if resize is None else write.node("Resize", [small, *resize.inputs[1:]], resize.attributes)
