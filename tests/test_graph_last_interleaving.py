"""The largest images stay in the form of their phases, and the numbers stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.block_weights import BlockWeights, split_by_phases
from export.graph.last_interleaving import move_last_interleaving
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
    draw_pads,
    list_operators,
)

if TYPE_CHECKING:
    from tests.small_graphs import Pads


def interleave(graph: SmallGraph, phases: str, mode: str = "DCR") -> str:
    return graph.node("DepthToSpace", phases, blocksize=2, mode=mode)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, channels=CHANNELS, size=SIZES, pads=draw_pads((3, 5)), stride=st.sampled_from([2, 4]),
    margin=st.integers(0, 2), is_swapped=st.booleans(),
)  # fmt: skip
def test_all_that_follows_up_to_a_convolution_of_even_stride(
    seed: int,
    batch: int,
    channels: int,
    size: tuple[int, int],
    pads: Pads,
    stride: int,
    margin: int,
    is_swapped: bool,
) -> None:
    height, width = (2 * each for each in size)
    graph = SmallGraph(seed)
    image = interleave(graph, graph.input(4 * channels, height, width))
    factor, offset = (graph.input(channels, 1, 1, name=name) for name in ("factor", "offset"))
    image = graph.node("Relu", graph.node("Add", offset, graph.node("Mul", image, factor)))
    image = graph.conv(image, channels, 3, (3, 5), pads=pads)
    skip = graph.upsample(graph.input(3, height, width, name="small"))
    image = graph.node("Add", skip, image) if is_swapped else graph.node("Add", image, skip)
    image = graph.node("Add", image, graph.node("Relu", image))
    around = (margin, margin, margin, margin)
    graph.conv(image, 3, 2, (stride + 2 * margin, stride + 2 * margin), pads=around, strides=[stride, stride])
    rewriting = apply_pass(move_last_interleaving, graph.model())
    assert rewriting.n_changes == 8
    assert not {"DepthToSpace", "Resize"} & set(list_operators(rewriting.after))
    assert_same_function(rewriting, graph, batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, channels=CHANNELS, size=SIZES, is_swapped=st.booleans(), takes_first=st.booleans(),
)  # fmt: skip
def test_a_skip_becomes_channels_of_a_pointwise_convolution(
    seed: int, batch: int, channels: int, size: tuple[int, int], is_swapped: bool, takes_first: bool
) -> None:
    graph = SmallGraph(seed)
    phases = graph.conv(graph.input(2, *size), 2, 4 * channels, (1, 1))
    small = graph.input(channels + takes_first, *size, name="small")
    if takes_first:
        small = graph.slice(small, 0, channels, 1)
    small = graph.conv(small, 1, channels, (1, 1), group=channels)
    summands = interleave(graph, phases), graph.upsample(small)
    graph.node("Add", *(reversed(summands) if is_swapped else summands))
    rewriting = apply_pass(move_last_interleaving, graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after) == ["Transpose", "Transpose", "Concat", "Transpose", "Conv", "DepthToSpace"]
    assert_same_function(rewriting, graph, batch)


def test_only_the_largest_images_stay_in_phases() -> None:
    graph = SmallGraph()
    small = graph.node("Relu", interleave(graph, graph.input(16, 2, 3)))
    graph.node("Relu", interleave(graph, graph.conv(small, 4, 8)))
    rewriting = apply_pass(move_last_interleaving, graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after) == ["DepthToSpace", "Relu", "Conv", "Relu", "DepthToSpace"]
    assert_same_function(rewriting, graph, 2)


@pytest.mark.parametrize(("n_in", "n_changes"), [(16, 1), (17, 0)])
def test_a_convolution_of_many_channels_stays_as_it_is(n_in: int, n_changes: int) -> None:
    graph = SmallGraph()
    graph.conv(interleave(graph, graph.input(4 * n_in, 2, 3)), n_in, 2)
    rewriting = apply_pass(move_last_interleaving, graph.model())
    assert rewriting.n_changes == n_changes
    assert_same_function(rewriting, graph, 1)


def test_what_does_not_fit_stays_as_it_is() -> None:
    graph = SmallGraph()
    image = interleave(graph, graph.input(8, 4, 4))
    odd = graph.conv(image, 2, 2, (3, 3), pads=(0, 0, 0, 0), strides=[3, 3])
    loose = graph.conv(image, 2, 2, (3, 3), pads=(0, 0, 0, 0), strides=[2, 2])
    sloped = graph.node("Mul", image, graph.constant(graph.values(8)))
    check_untouched(move_last_interleaving, graph.model(odd, loose, sloped))
    other = SmallGraph()
    other.node("Relu", interleave(other, other.input(8, 4, 4), mode="CRD"))
    check_untouched(move_last_interleaving, other.model())


def test_the_phases_of_a_kernel() -> None:
    """One row of taps -1, 0, 1, 2 around pixels 0 and 1: odd, even, odd, even columns."""
    weight = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 1, 4).repeat(2, axis=2)
    split = split_by_phases(BlockWeights(weight=weight, pads=(0, 1, 0, 1), strides=(2, 2)))
    assert (split.pads, split.strides) == ((0, 1, 0, 1), (1, 1))
    assert split.weight.shape == (1, 4, 1, 3)
    assert split.weight[0, :, 0].tolist() == [[0, 2, 4], [1, 3, 0]] * 2
