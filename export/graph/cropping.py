"""Rows and channels that are cut off at the end are cut before the pointwise work.

Matches a ``Slice`` or a ``Gather`` at constant places of a pointwise operator's result. It becomes the operator of the
slice: each element is computed by itself, so those that are dropped need not be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.nodes import POINTWISE, find_only_user, read_constant
from export.graph.rules import Writer, apply_rules_to_fixpoint

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["crop_early"]


def crop_early(model: ir.Model) -> int:
    """Move crops before pointwise work until none is left to move; return how often."""
    return apply_rules_to_fixpoint(model, {"Slice": _cropped_first, "Gather": _cropped_first})


def _cropped_first(write: Writer, node: ir.Node) -> ir.Value | None:
    value = node.inputs[0]
    before = None if value is None or find_only_user(value) is None else value.producer()
    if before is None or before.op_type not in POINTWISE or before.domain != "":
        return None
    if any(read_constant(each) is None for each in node.inputs[1:]):
        return None
    early = write.node(node.op_type, [before.inputs[0], *node.inputs[1:]], node.attributes)
    return write.node(before.op_type, [early], before.attributes)
