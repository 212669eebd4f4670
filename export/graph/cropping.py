"""Move crops of rows and channels before pointwise operators.

Matches a ``Slice`` or ``Gather`` with constant indices of a pointwise operator's output. The operator is then applied
to the cropped input: it computes each element by itself, so elements that are dropped need no computation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph.nodes import POINTWISE, find_only_user, read_constant
from export.graph.rules import Writer, apply_rules_to_fixpoint

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["crop_early"]


def crop_early(model: ir.Model) -> int:
    """Move all crops before pointwise operators; return the number of moves."""
    return apply_rules_to_fixpoint(model, {"Slice": _crop_first, "Gather": _crop_first})


def _crop_first(write: Writer, node: ir.Node) -> ir.Value | None:
    value = node.inputs[0]
    before = None if value is None or find_only_user(value) is None else value.producer()
    if before is None or before.op_type not in POINTWISE or before.domain != "":
        return None
    if any(read_constant(each) is None for each in node.inputs[1:]):
        return None
    early = write.node(node.op_type, [before.inputs[0], *node.inputs[1:]], node.attributes)
    return write.node(before.op_type, [early], before.attributes)
