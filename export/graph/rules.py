"""Rewrite rules: a function takes one node and writes its replacement, or returns None.

onnxscript matches, replaces and cleans up. Its patterns cannot express most conditions of a pass (constants, sizes,
other users of a value), so here a pattern is one operator and the function decides. Only this module handles the
rewriter's dynamic types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from export.graph.nodes import make_unique_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TO_FIRST", "TO_LAST", "Rewrite", "Writer", "apply_rules", "apply_rules_to_fixpoint"]

Attributes = Mapping[str, ir.Attr]


TO_LAST: Final = (0, 2, 3, 1)
"""Axes of an image with channels first, in the order of one with channels last."""
TO_FIRST: Final = (0, 3, 1, 2)
"""Axes of an image with channels last, in the order of one with channels first."""


class Writer:
    """Writes the nodes that replace a node.

    Parameters
    ----------
    context : Any
        onnxscript's builder.
    node : ir.Node
        The node to replace. New constants are named after its output.
    """

    def __init__(self, context: Any, node: ir.Node) -> None:  # noqa: ANN401
        self._context = context
        self._node = node

    def node(
        self,
        operator: str,
        inputs: Sequence[ir.Value | None],
        copied: Attributes | None = None,
        **attributes: float | str | Sequence[int] | ir.TensorProtocol,
    ) -> ir.Value:
        """Write a node of one output, with attributes of another node and further ones."""
        operation = getattr(self._context, operator)
        value: ir.Value = operation(*inputs, **(copied or {}), **attributes)
        return value

    def constant(self, values: NDArray[np.generic], suffix: str) -> ir.Value:
        """Write an initializer."""
        tensor = ir.tensor(np.asarray(values, order="C"))
        value: ir.Value = self._context.initializer(tensor, name=make_unique_name(self._node, suffix))
        return value

    def reshape(self, value: ir.Value, suffix: str, axes: Sequence[int]) -> ir.Value:
        """Write a node that gives a value other axes, and the initializer of its shape."""
        return self.node("Reshape", [value, self.constant(np.array(axes, np.int64), f"{suffix}.shape")])


Rewrite = Callable[[Writer, ir.Node], ir.Value | None]
"""Returns the replacement of a node's one output, written with the writer; None leaves the node as it is."""


def apply_rules(model: ir.Model, rules: Mapping[str, Rewrite]) -> int:
    """Apply rules to each node once; return the number of replaced nodes.

    The rewriter also visits the nodes that a rule writes. A rule must not match its own output, or the rewriting never
    ends.

    Parameters
    ----------
    model : ir.Model
        Changed in place. Unused nodes are removed.
    rules : mapping of str to callable
        Rules by operator of ONNX's own domain.
    """
    built = [_build_rule(operator, rewrite) for operator, rewrite in rules.items()]
    return int(pattern.RewriteRuleSet(built).apply_to_model(model))


def apply_rules_to_fixpoint(model: ir.Model, rules: Mapping[str, Rewrite]) -> int:
    """Apply rules until nothing is replaced; return the number of replaced nodes."""
    total = 0
    while n_replaced := apply_rules(model, rules):
        total += n_replaced
    return total


def _build_rule(operator: str, rewrite: Rewrite) -> pattern.RewriteRule:
    def target(op: Any) -> Any:  # noqa: ANN401
        return getattr(op, operator)(_allow_other_inputs=True, _outputs=["result"])

    def replacement(op: Any, result: ir.Value, **_: ir.Value) -> ir.Value | None:  # noqa: ANN401
        node = result.producer()
        return None if node is None or len(node.outputs) != 1 else rewrite(Writer(op, node), node)

    return _Rule(target, replacement, name=operator, remove_nodes=False)


class _Rule(pattern.RewriteRule):
    """A rule that is tried on nodes of its operator alone: to see that a node is another takes the matcher longer."""

    def try_rewrite(self, model: ir.Model, graph_or_function: Any, node: ir.Node, **options: Any) -> Any:  # noqa: ANN401
        """Write the replacement of a node; None leaves it as it is."""
        return super().try_rewrite(model, graph_or_function, node, **options) if node.op_type == self.name else None
