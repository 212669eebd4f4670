"""Move work before a nearest upsampling, where it costs a quarter.

Matches a pointwise operator, a pointwise convolution, or a sum, of images that are upsampled by 2. It becomes the
upsampling of the operator's result on the small images. Upsampling copies pixels, and these operators treat each pixel
by itself, so the numbers are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.nodes import POINTWISE, find_before_upsampling, have_equal_shapes, match_convolution
from export.graph.rules import Writer, apply_rules_to_fixpoint

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["move_before_upsampling"]


def move_before_upsampling(model: ir.Model) -> int:
    """Move all such work before upsamplings; return the number of moves."""
    rules = {"Conv": _convolve_early, "Add": _add_early, **dict.fromkeys(sorted(POINTWISE), _apply_early)}
    return apply_rules_to_fixpoint(model, rules)


def _convolve_early(write: Writer, node: ir.Node) -> ir.Value | None:
    found = match_convolution(node)
    return None if found is None or not found.is_pointwise else _apply_early(write, node)


def _apply_early(write: Writer, node: ir.Node) -> ir.Value | None:
    image = node.inputs[0]
    small = find_before_upsampling(image)
    if image is None or small is None:
        return None
    return _upsample_like(write, write.node(node.op_type, [small, *node.inputs[1:]], node.attributes), image)


def _add_early(write: Writer, node: ir.Node) -> ir.Value | None:
    first, second = node.inputs
    small = find_before_upsampling(first), find_before_upsampling(second)
    if first is None or None in small or not have_equal_shapes(first, second):
        return None
    return _upsample_like(write, write.node("Add", small), first)


def _upsample_like(write: Writer, small: ir.Value, image: ir.Value) -> ir.Value | None:
    """Upsample an image as another one is upsampled."""
    resize = image.producer()
    return None if resize is None else write.node("Resize", [small, *resize.inputs[1:]], resize.attributes)
