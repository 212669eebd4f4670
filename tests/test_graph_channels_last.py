"""Interleavings and sums with upsampled images in the form that is fast on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.channels_last import use_channels_last
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    apply_pass,
    assert_same_function,
    check_untouched,
    evaluate,
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@FEW
@given(seed=SEEDS, batch=BATCHES, channels=CHANNELS, size=SIZES, is_rectified=st.booleans())
def test_the_rows_of_a_convolutions_phases(
    seed: int, batch: int, channels: int, size: tuple[int, int], is_rectified: bool
) -> None:
    graph = SmallGraph(seed)
    phases = graph.conv(graph.input(3, *size), 3, 4 * channels)
    if is_rectified:
        phases = graph.node("Relu", phases)
    graph.node("DepthToSpace", phases, blocksize=2, mode="DCR")
    rewriting = apply_pass(use_channels_last, graph.model())
    operators = list_operators(rewriting.after)
    assert rewriting.n_changes == 1
    assert "DepthToSpace" not in operators
    assert (operators.count("Conv"), operators.count("Relu")) == (2, 2 * is_rectified)
    assert_same_function(rewriting, graph, batch)


@FEW
@given(seed=SEEDS, batch=BATCHES, channels=CHANNELS, size=SIZES, is_swapped=st.booleans())
def test_a_sum_with_an_upsampled_image(
    seed: int, batch: int, channels: int, size: tuple[int, int], is_swapped: bool
) -> None:
    graph = SmallGraph(seed)
    upsampled = graph.upsample(graph.input(channels, *size))
    image = graph.input(channels, 2 * size[0], 2 * size[1], name="image")
    graph.node("Add", *((upsampled, image) if is_swapped else (image, upsampled)))
    rewriting = apply_pass(use_channels_last, graph.model())
    assert rewriting.n_changes == 1
    assert "Resize" not in list_operators(rewriting.after)
    assert_same_function(rewriting, graph, batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, channels=st.tuples(st.integers(2, 4), CHANNELS), size=SIZES,
    kind=st.sampled_from(["dense", "of each channel", "first channels", "dense, of first channels"]),
)  # fmt: skip
def test_a_pointwise_layer_writes_both_columns_of_a_skip(
    seed: int, batch: int, channels: tuple[int, int], size: tuple[int, int], kind: str
) -> None:
    graph, (n_in, n_out) = SmallGraph(seed), channels
    small = graph.input(n_in, *size)
    if "first channels" in kind:
        n_in -= 1
        small = graph.slice(small, 0, n_in, 1)
    if "dense" in kind:
        small = graph.conv(small, n_in, n_out, (1, 1))
    else:
        n_out = n_in
    if kind == "of each channel":
        small = graph.conv(small, 1, n_out, (1, 1), group=n_in)
    image = graph.input(n_out, 2 * size[0], 2 * size[1], name="image")
    graph.node("Add", image, graph.upsample(small))
    rewriting = apply_pass(use_channels_last, graph.model())
    operators = list_operators(rewriting.after)
    assert rewriting.n_changes == 1
    assert operators.count("Conv") == 1
    assert not {"Concat", "Slice", "Resize"} & set(operators)
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda graph: graph.conv("z", 4, 4), id="a larger kernel"),
        pytest.param(lambda graph: graph.conv("z", 4, 4, (1, 1), pads=(1, 0, 0, 1)), id="pads"),
        pytest.param(lambda graph: graph.conv("z", 4, 4, (1, 1), strides=[1, 2]), id="a stride"),
        pytest.param(lambda graph: graph.conv("z", 2, 4, (1, 1), group=2), id="groups of two channels"),
        pytest.param(lambda graph: graph.conv("z", 1, 8, (1, 1), group=4), id="two filters for each channel"),
        pytest.param(lambda graph: graph.slice("z", 1, 4, 1), id="other channels"),
    ],
)
def test_what_else_computes_a_skip_stays(write: Callable[[SmallGraph], str]) -> None:
    graph = SmallGraph()
    graph.input(4, 3, 5)
    upsampled = graph.upsample(write(graph))
    computed = graph.nodes[0].op_type
    (shape,) = (each.shape for each in evaluate(graph.model(upsampled), graph.feeds(1)))
    graph.node("Add", graph.input(*shape[1:], name="image"), upsampled)
    rewriting = apply_pass(use_channels_last, graph.model())
    assert rewriting.n_changes == 1
    assert {computed, "Concat"} <= set(list_operators(rewriting.after))
    assert_same_function(rewriting, graph, 2)


def test_a_layer_that_others_use_stays() -> None:
    graph = SmallGraph()
    small = graph.conv(graph.input(4, 3, 5), 4, 2, (1, 1))
    other = graph.node("Abs", small)
    total = graph.node("Add", graph.input(2, 6, 10, name="image"), graph.upsample(small))
    rewriting = apply_pass(use_channels_last, graph.model(total, other))
    assert list_operators(rewriting.after).count("Conv") == list_operators(rewriting.after).count("Concat") == 1
    assert_same_function(rewriting, graph, 2)


@pytest.mark.parametrize(("blocksize", "mode"), [(4, "DCR"), (2, "CRD")])
def test_other_interleavings_stay_as_they_are(blocksize: int, mode: str) -> None:
    graph = SmallGraph()
    graph.node("DepthToSpace", graph.conv(graph.input(3, 2, 3), 3, 16), blocksize=blocksize, mode=mode)
    check_untouched(use_channels_last, graph.model())


def test_the_phases_of_a_convolution_in_groups_stay_as_they_are() -> None:
    graph = SmallGraph()
    graph.node("DepthToSpace", graph.conv(graph.input(4, 2, 3), 2, 12, group=2), blocksize=2, mode="DCR")
    check_untouched(use_channels_last, graph.model())


def test_phases_that_no_convolution_computes_and_other_sums_stay_as_they_are() -> None:
    graph = SmallGraph()
    image = graph.node("DepthToSpace", graph.input(12, 2, 3), blocksize=2, mode="DCR")
    row = graph.input(3, 1, 6, name="row")
    graph.node("Add", image, row)
    check_untouched(use_channels_last, graph.model())
