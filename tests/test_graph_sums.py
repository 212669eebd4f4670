"""Sums are fused into the convolutions before them: an operator that ONNX Runtime alone has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.sums import MICROSOFT, fuse_sums
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    KERNELS,
    SEEDS,
    SIZES,
    Rewriting,
    SmallGraph,
    assert_close,
    assert_same_function,
    cases,
    evaluated,
    operators,
    require_untouched,
    rewritten_by,
    run_by_onnxruntime,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx


def check_fused(graph: SmallGraph, model: onnx.ModelProto, batch: int, n_changes: int = 1) -> Rewriting:
    """Check that the reference evaluator and ONNX Runtime agree on the fused graph, and on the one that it was."""
    rewriting = rewritten_by(fuse_sums, model)
    assert rewriting.n_changes == n_changes
    assert operators(rewriting.after).count("FusedConv") == n_changes
    assert {each.domain: each.version for each in rewriting.after.opset_import}[MICROSOFT] == 1
    assert_same_function(rewriting, graph, batch)
    feeds = graph.feeds(batch)
    for expected, *others in zip(
        evaluated(rewriting.before, feeds),
        run_by_onnxruntime(rewriting.before, feeds),
        run_by_onnxruntime(rewriting.after, feeds),
        strict=True,
    ):
        for found in others:
            assert_close(found, expected)
    return rewriting


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, kernel=KERNELS, bias=st.booleans(),
    comes_second=st.booleans(), whole=st.booleans(), follows=st.booleans(),
)  # fmt: skip
def test_of_a_convolution_and_something_else(
    seed: int,
    batch: int,
    n_in: int,
    n_out: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    bias: bool,
    comes_second: bool,
    whole: bool,
    follows: bool,
) -> None:
    graph = SmallGraph(seed, whole=whole)
    convolved = graph.conv(graph.input(n_in, *size), n_in, n_out, kernel, bias=bias)
    other = graph.input(n_out, *size, name="y")
    total = graph.node("Add", *((other, convolved) if comes_second else (convolved, other)))
    if follows:
        graph.node("Relu", total)
    rewriting = check_fused(graph, graph.model(), batch)
    assert operators(rewriting.after) == ["FusedConv", *["Relu"] * follows]


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_each=st.integers(1, 2), groups=st.integers(1, 3), stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)  # fmt: skip
def test_whatever_the_convolution(seed: int, batch: int, n_each: int, groups: int, stride: int, dilation: int) -> None:
    graph = SmallGraph(seed)
    convolved = graph.conv(
        graph.input(n_each * groups, 8, 8), n_each, 2 * groups, (3, 3), pads=(dilation,) * 4,
        strides=[stride, stride], dilations=[dilation, dilation], group=groups,
    )  # fmt: skip
    graph.node("Add", convolved, graph.input(2 * groups, 8 // stride, 8 // stride, name="y"))
    check_fused(graph, graph.model(), batch)


@FEW
@given(seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES)
def test_of_two_convolutions_one_is_fused(seed: int, batch: int, n_in: int, n_out: int, size: tuple[int, int]) -> None:
    graph = SmallGraph(seed)
    image = graph.input(n_in, *size)
    graph.node("Add", graph.conv(image, n_in, n_out), graph.conv(image, n_in, n_out, (1, 1)))
    rewriting = check_fused(graph, graph.model(), batch)
    assert operators(rewriting.after) == ["Conv", "FusedConv"]


@FEW
@given(seed=SEEDS, batch=BATCHES, n_blocks=st.integers(1, 3))
def test_of_the_blocks_of_a_generator(seed: int, batch: int, n_blocks: int) -> None:
    graph = SmallGraph(seed)
    image = graph.input(2, 3, 4)
    for _ in range(n_blocks):
        main = graph.node("Relu", graph.conv(image, 2, 2, (1, 3)))
        image = graph.node("Add", graph.conv(main, 2, 2, (1, 1)), image)
    check_fused(graph, graph.model(), batch, n_changes=n_blocks)


def test_the_other_convolution_is_fused_where_the_first_is_needed() -> None:
    graph = SmallGraph()
    image = graph.input(2, 3, 4)
    first, second = graph.conv(image, 2, 2), graph.conv(image, 2, 2, (1, 1))
    rewriting = check_fused(graph, graph.model(graph.node("Add", first, second), first), 2)
    (fused,) = (node for node in rewriting.after.graph.node if node.op_type == "FusedConv")
    assert fused.input[3] == first


def _others_use_the_convolution(graph: SmallGraph) -> onnx.ModelProto:
    convolved = graph.conv(graph.input(2, 3, 4), 2, 2)
    return graph.model(graph.node("Add", convolved, "z"), graph.node("Relu", convolved))


def _the_graph_gives_out_the_convolution(graph: SmallGraph) -> onnx.ModelProto:
    convolved = graph.conv(graph.input(2, 3, 4), 2, 2)
    return graph.model(graph.node("Add", convolved, "z"), convolved)


def _a_convolution_added_to_itself(graph: SmallGraph) -> onnx.ModelProto:
    convolved = graph.conv(graph.input(2, 3, 4), 2, 2)
    return graph.model(graph.node("Add", convolved, convolved))


def _a_constant_that_broadcasts(graph: SmallGraph) -> onnx.ModelProto:
    convolved = graph.conv(graph.input(2, 3, 4), 2, 2)
    return graph.model(graph.node("Add", convolved, graph.constant(graph.values(2, 1, 1))))


def _a_convolution_that_broadcasts(graph: SmallGraph) -> onnx.ModelProto:
    convolved = graph.conv(graph.input(2, 1, 1), 2, 2, (1, 1))
    return graph.model(graph.node("Add", convolved, graph.input(2, 3, 4, name="y")))


def _batches_that_may_differ(graph: SmallGraph) -> onnx.ModelProto:
    model = graph.model(graph.node("Add", graph.conv(graph.input(2, 3, 4), 2, 2), graph.input(2, 3, 4, name="y")))
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "m"
    return model


def _batches_without_a_name(graph: SmallGraph) -> onnx.ModelProto:
    model = graph.model(graph.node("Add", graph.conv(graph.input(2, 3, 4), 2, 2), graph.input(2, 3, 4, name="y")))
    for value in (*model.graph.input, *model.graph.value_info):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
    return model


def _filters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    filters = graph.node("Abs", graph.constant(graph.values(2, 2, 1, 1)))
    return graph.model(graph.node("Add", graph.node("Conv", graph.input(2, 3, 4), filters), "z"))


def _something_lies_between(graph: SmallGraph) -> onnx.ModelProto:
    return graph.model(graph.node("Add", graph.node("Relu", graph.conv(graph.input(2, 3, 4), 2, 2)), "z"))


def _a_difference(graph: SmallGraph) -> onnx.ModelProto:
    return graph.model(graph.node("Sub", graph.conv(graph.input(2, 3, 4), 2, 2), "z"))


@pytest.mark.parametrize(
    "write",
    cases(
        _others_use_the_convolution,
        _the_graph_gives_out_the_convolution,
        _a_convolution_added_to_itself,
        _a_constant_that_broadcasts,
        _a_convolution_that_broadcasts,
        _batches_that_may_differ,
        _batches_without_a_name,
        _filters_that_are_computed,
        _something_lies_between,
        _a_difference,
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    require_untouched(fuse_sums, write(SmallGraph()))
