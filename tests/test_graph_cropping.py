"""Crops move before pointwise operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.cropping import crop_early
from export.graph.nodes import POINTWISE
from tests.small_graphs import (
    BATCHES,
    FEW,
    SEEDS,
    SmallGraph,
    apply_pass,
    assert_same_function,
    cases,
    check_untouched,
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

SHAPE: Final = (3, 4, 6)
"""Channels, rows and columns of the images."""
PARTS: Final = st.integers(0, 2).flatmap(
    lambda axis: st.tuples(
        st.just(axis + 1),
        st.sampled_from([(0, SHAPE[axis] - 1, 1), (1, 99, 1), (-2, 99, 1), (0, 99, 2), (-1, -99, -1)]),
    )
)
"""Axis, start, end and step of a slice."""


def check_cropped(graph: SmallGraph, model: onnx.ModelProto, batch: int, n_changes: int, expected: list[str]) -> None:
    rewriting = apply_pass(crop_early, model)
    assert rewriting.n_changes == n_changes
    assert list_operators(rewriting.after) == expected
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize("operator", sorted(POINTWISE))
@FEW
@given(seed=SEEDS, batch=BATCHES, part=PARTS)
def test_slices(operator: str, seed: int, batch: int, part: tuple[int, tuple[int, int, int]]) -> None:
    graph = SmallGraph(seed, whole=False)
    axis, (start, end, step) = part
    graph.slice(graph.node(operator, graph.input(*SHAPE)), start, end, axis, step)
    check_cropped(graph, graph.model(), batch, 1, ["Slice", operator])


@pytest.mark.parametrize("operator", sorted(POINTWISE))
@pytest.mark.parametrize("axis", [1, 2, 3, -1])
@pytest.mark.parametrize("places", [np.array(0), np.array(-1), np.array([2, 0]), np.array([[1], [1]])])
def test_gathered_places(operator: str, axis: int, places: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> None:
    graph = SmallGraph(whole=False)
    graph.node("Gather", graph.node(operator, graph.input(*SHAPE)), graph.constant(places), axis=axis)
    check_cropped(graph, graph.model(), 2, 1, ["Gather", operator])


@pytest.mark.parametrize("operator", ["LeakyRelu", "Elu"])
def test_attributes_stay(operator: str) -> None:
    graph = SmallGraph(whole=False)
    graph.slice(graph.node(operator, graph.input(*SHAPE), alpha=0.75), 0, 3, 2)
    check_cropped(graph, graph.model(), 2, 1, ["Slice", operator])


@FEW
@given(
    seed=SEEDS, batch=BATCHES, work=st.lists(st.sampled_from(["Relu", "Neg", "Abs"]), min_size=1, max_size=3),
    parts=st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True),
)  # fmt: skip
@pytest.mark.slow
def test_several_crops_move_before_several_operators(seed: int, batch: int, work: list[str], parts: list[int]) -> None:
    graph = SmallGraph(seed)
    value = graph.conv(graph.input(3, 4, 6), 3, 3)
    for operator in work:
        value = graph.node(operator, value)
    for axis in parts:
        value = graph.slice(value, 0, -1, axis)
    graph.node("Gather", value, graph.constant(np.array(0)), axis=1)
    crops = [*["Slice"] * len(parts), "Gather"]
    check_cropped(graph, graph.model(), batch, len(work) * len(crops), ["Conv", *crops, *work])


def test_the_end_of_a_generator() -> None:
    graph = SmallGraph(whole=False)
    whole = graph.node("Tanh", graph.conv(graph.input(2, 4, 6), 2, 1))
    graph.node("Gather", graph.slice(whole, 0, 3, 2), graph.constant(np.array(0)), axis=1)
    check_cropped(graph, graph.model(), 3, 2, ["Conv", "Slice", "Gather", "Tanh"])


def _others_use_the_whole(graph: SmallGraph) -> onnx.ModelProto:
    whole = graph.node("Tanh", graph.input(*SHAPE))
    return graph.model(graph.slice(whole, 0, 3, 2), graph.node("Abs", whole))


def _two_crops_of_one_image(graph: SmallGraph) -> onnx.ModelProto:
    whole = graph.node("Tanh", graph.input(*SHAPE))
    return graph.model(graph.slice(whole, 0, 2, 2), graph.slice(whole, 2, 4, 2))


def _the_graph_gives_out_the_whole(graph: SmallGraph) -> onnx.ModelProto:
    whole = graph.node("Tanh", graph.input(*SHAPE))
    return graph.model(graph.slice(whole, 0, 3, 2), whole)


def _places_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    place = graph.node("Abs", graph.constant(np.array(1)))
    return graph.model(graph.node("Gather", graph.node("Tanh", graph.input(*SHAPE)), place, axis=1))


def _pointwise_work_on_the_places(graph: SmallGraph) -> onnx.ModelProto:
    place = graph.node("Neg", graph.constant(np.array(1)))
    return graph.model(graph.node("Gather", graph.input(*SHAPE), place, axis=1))


@pytest.mark.parametrize(
    "write",
    cases(
        _others_use_the_whole,
        _two_crops_of_one_image,
        _the_graph_gives_out_the_whole,
        _places_that_are_computed,
        _pointwise_work_on_the_places,
        **{
            "an operator that takes more": lambda graph: graph.model(
                graph.slice(graph.node("Add", graph.input(*SHAPE), graph.input(*SHAPE, name="y")), 0, 3, 2)
            ),
            "an operator over several pixels": lambda graph: graph.model(
                graph.slice(graph.node("Softmax", graph.input(*SHAPE), axis=3), 0, 3, 2)
            ),
            "a convolution": lambda graph: graph.model(graph.slice(graph.conv(graph.input(*SHAPE), 3, 2), 0, 3, 2)),
            "a crop of the input": lambda graph: graph.model(
                graph.node("Tanh", graph.slice(graph.input(*SHAPE), 0, 3, 2))
            ),
        },
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(crop_early, write(SmallGraph()))


def test_so_are_operators_of_another_domain() -> None:
    graph = SmallGraph()
    graph.slice(graph.node("Tanh", graph.input(*SHAPE)), 0, 3, 2)
    model = graph.model()
    model.graph.node[0].domain = "elsewhere"
    assert crop_early(ir.from_proto(model)) == 0
