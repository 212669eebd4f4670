"""Rewrite rules: functions that write the replacement of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest

from export.graph.nodes import find_only_user
from export.graph.rules import Writer, apply_rules, apply_rules_to_fixpoint
from tests.small_graphs import (
    SmallGraph,
    apply_pass,
    assert_same_function,
    cases,
    check_untouched,
    list_operators,
    read_initializers,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx


def without_neg(write: Writer, node: ir.Node) -> ir.Value | None:
    """Write Abs(x) for Abs(-x)."""
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    return None if before is None or before.op_type != "Neg" else write.node("Abs", [before.inputs[0]])


def test_the_result_is_replaced_and_what_it_was_made_of_removed() -> None:
    graph = SmallGraph()
    graph.node("Relu", graph.node("Abs", graph.node("Neg", graph.input(3))))
    rewriting = apply_pass(lambda model: apply_rules(model, {"Abs": without_neg}), graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after) == ["Abs", "Relu"]
    assert_same_function(rewriting, graph, 2)


def test_nodes_that_nothing_uses_are_removed_at_once() -> None:
    graph = SmallGraph()
    graph.node("Abs", graph.node("Neg", graph.input(3)))
    model = ir.from_proto(graph.model())
    assert apply_rules(model, {"Abs": without_neg}) == 1
    assert [node.op_type for node in model.graph] == ["Abs"]


def test_what_others_use_stays() -> None:
    graph = SmallGraph()
    negative = graph.node("Neg", graph.input(3))
    rewriting = apply_pass(
        lambda model: apply_rules(model, {"Abs": without_neg}), graph.model(graph.node("Abs", negative), negative)
    )
    assert sorted(list_operators(rewriting.after)) == ["Abs", "Neg"]
    assert_same_function(rewriting, graph, 2)


def test_what_is_written_is_offered_in_turn() -> None:
    graph = SmallGraph()
    value = graph.input(3)
    for _ in range(3):
        value = graph.node("Neg", value)
    graph.node("Abs", value)
    rewriting = apply_pass(lambda model: apply_rules(model, {"Abs": without_neg}), graph.model())
    assert (rewriting.n_changes, list_operators(rewriting.after)) == (3, ["Abs"])
    assert_same_function(rewriting, graph, 2)


def test_all_are_offered_again_until_nothing_is_replaced() -> None:
    def join(write: Writer, node: ir.Node) -> ir.Value | None:
        user = find_only_user(node.outputs[0])
        return write.node("Abs", [node.inputs[0]]) if user is not None and user.op_type == "Abs" else None

    graph = SmallGraph()
    value = graph.input(3)
    for operator in ("Relu", "Relu", "Relu", "Abs"):
        value = graph.node(operator, value)
    # From the first to the last, only the last Relu finds an Abs behind it.
    once = apply_pass(lambda model: apply_rules(model, {"Relu": join}), graph.model())
    assert (once.n_changes, list_operators(once.after)) == (1, ["Relu", "Relu", "Abs", "Abs"])
    to_the_end = apply_pass(lambda model: apply_rules_to_fixpoint(model, {"Relu": join}), graph.model())
    assert (to_the_end.n_changes, list_operators(to_the_end.after)) == (3, ["Abs"] * 4)


def test_several_rules_at_once() -> None:
    graph = SmallGraph()
    graph.node("Elu", graph.node("Relu", graph.node("Abs", graph.input(3))), alpha=0.5)
    seen: list[str] = []

    def watch(_: Writer, node: ir.Node) -> None:
        seen.append(node.op_type)

    model = ir.from_proto(graph.model())
    assert apply_rules(model, {"Abs": watch, "Elu": watch}) == 0
    assert seen == ["Abs", "Elu"]


def test_attributes_are_copied_or_given() -> None:
    def with_attributes(write: Writer, node: ir.Node) -> ir.Value:
        copied = write.node("LeakyRelu", [node.inputs[0]], node.attributes)
        return write.node("Softmax", [copied], axis=1)

    graph = SmallGraph()
    graph.node("Elu", graph.input(3), alpha=0.25)
    after = apply_pass(lambda model: apply_rules(model, {"Elu": with_attributes}), graph.model()).after
    leaky, softmax = after.graph.node
    assert [(each.name, each.f) for each in leaky.attribute] == [("alpha", 0.25)]
    assert [(each.name, each.i) for each in softmax.attribute] == [("axis", 1)]


def test_constants_and_inputs_that_are_left_out() -> None:
    def with_constants(write: Writer, node: ir.Node) -> ir.Value:
        numbers = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
        return write.node("Strange", [node.inputs[0], None, write.constant(numbers, "numbers")])

    graph = SmallGraph()
    graph.node("Abs", graph.input(3))
    model = ir.from_proto(graph.model())
    assert apply_rules(model, {"Abs": with_constants}) == 1
    (node,) = ir.to_proto(model).graph.node
    assert (node.domain, list(node.input)) == ("", ["z", "", "val_0.numbers"])
    assert read_initializers(ir.to_proto(model))["val_0.numbers"].tolist() == [[0, 1, 2], [3, 4, 5]]


def never(_: Writer, __: ir.Node) -> ir.Value | None:
    return None


def always(write: Writer, node: ir.Node) -> ir.Value | None:
    return write.node("Neg", [node.inputs[0]])


def _no_such_operator(graph: SmallGraph) -> onnx.ModelProto:
    return graph.model(graph.conv(graph.node("Neg", graph.input(2, 3, 4)), 2, 2))


def _several_outputs(graph: SmallGraph) -> onnx.ModelProto:
    pair = graph.node("Split", graph.input(4, 3), axis=1, num_outputs=2)
    graph.nodes[-1].output.append("rest")
    return graph.model(pair, "rest")


@pytest.mark.parametrize("write", cases(_no_such_operator, _several_outputs))
def test_other_operators_are_not_offered(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(lambda model: apply_rules(model, {"Abs": always, "Split": always}), write(SmallGraph()))


def test_an_operator_of_the_same_name_elsewhere_is_not_offered() -> None:
    graph = SmallGraph()
    graph.node("Abs", graph.input(3))
    model = graph.model()
    model.graph.node[0].domain = "elsewhere"
    assert apply_rules(ir.from_proto(model), {"Abs": always}) == 0


def test_a_rule_that_never_writes_leaves_the_graph_untouched() -> None:
    graph = SmallGraph()
    graph.node("Relu", graph.conv(graph.input(2, 3, 4), 2, 2))
    rules = {"Conv": never, "Relu": never}
    check_untouched(lambda model: apply_rules(model, rules), graph.model())
    check_untouched(lambda model: apply_rules_to_fixpoint(model, rules), graph.model())
