"""How a pass is written: a function that looks at one node and gives what stands for its result, or None.

The matching, the replacement and the clean-up are onnxscript's. Its patterns are written as calls; most of what a pass must
know (constants, sizes, who else uses a value) is beyond a pattern, so here the pattern is one operator, whose node
the function looks at. This is the one module that deals with the rewriter's dynamic types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from export.graph.nodes import make_unique_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rewrite", "Writer", "apply_rules", "apply_rules_to_fixpoint"]

Attributes = Mapping[str, ir.Attr]


class Writer:
    """Writes the nodes that stand for a node's result.

    Parameters
    ----------
    context : Any
        onnxscript's builder.
    node : ir.Node
        The node; what is written is named after its output.
    """

    def __init__(self, context: Any, node: ir.Node) -> None:  # noqa: ANN401
        self._context = context
        self._node = node

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        copied: Attributes | None = None,
        **attributes: float | str | Sequence[int],
    ) -> ir.Value:
        """Write a node of one output, with attributes copied from another or given."""
        operation = getattr(self._context, operator)
        value: ir.Value = operation(*inputs, **(copied or {}), **attributes)
        return value

    def constant(self, values: NDArray[np.generic], suffix: str) -> ir.Value:
        """Write an initializer."""
        tensor = ir.tensor(np.asarray(values, order="C"))
        value: ir.Value = self._context.initializer(tensor, name=make_unique_name(self._node, suffix))
        return value


Rewrite = Callable[[Writer, ir.Node], ir.Value | None]
"""Gives what stands for the one output of a node, written with the writer; None to leave the node alone."""


def apply_rules(model: ir.Model, rules: Mapping[str, Rewrite]) -> int:
    """Offer each node of certain operators to a function, once; return how many it replaced.

    The nodes that are written on the way come after the one they stand for and are offered too: what a function writes
    must not be what it replaces, or there is no end.

    Parameters
    ----------
    model : ir.Model
        Changed in place. Nodes that nothing uses any more are removed.
    rules : mapping of str to callable
        By operator, of ONNX's own domain.
    """
    made = [_rule(operator, rewrite) for operator, rewrite in rules.items()]
    return int(pattern.RewriteRuleSet(made).apply_to_model(model))


def apply_rules_to_fixpoint(model: ir.Model, rules: Mapping[str, Rewrite]) -> int:
    """Do as `rewritten` does, again and again until nothing is replaced."""
    total = 0
    while n_replaced := apply_rules(model, rules):
        total += n_replaced
    return total


def _rule(operator: str, rewrite: Rewrite) -> pattern.RewriteRule:
    def target(op: Any) -> Any:  # noqa: ANN401
        return getattr(op, operator)(_allow_other_inputs=True, _outputs=["result"])

    def replacement(op: Any, result: ir.Value, **_: ir.Value) -> ir.Value | None:  # noqa: ANN401
        node = result.producer()
        return None if node is None or len(node.outputs) != 1 else rewrite(Writer(op, node), node)

    return pattern.RewriteRule(target, replacement, name=operator, remove_nodes=False)
