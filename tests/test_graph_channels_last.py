"""Interleavings and sums with upsampled images in the form that is fast on a GPU."""

from __future__ import annotations

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
    list_operators,
)


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
