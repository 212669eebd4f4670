"""Conditional norms of large images as products of matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.graph.norm_products import make_norm_products
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    SEEDS,
    SmallGraph,
    apply_pass,
    assert_same_function,
    check_untouched,
    list_operators,
)

LARGE_SIZES = st.sampled_from([(32, 96), (3, 1025)])


@settings(max_examples=8)
@given(seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, size=LARGE_SIZES, n_norms=st.integers(1, 2))
def test_the_factors_become_matrices(
    seed: int, batch: int, n_channels: int, size: tuple[int, int], n_norms: int
) -> None:
    graph = SmallGraph(seed)
    graph.input(3, name="c")
    image = graph.input(n_channels, *size)
    for _ in range(n_norms):
        image = graph.node("Relu", graph.conditional_norm(image, "c", 3, n_channels))
    rewriting = apply_pass(make_norm_products, graph.model())
    operators = list_operators(rewriting.after)
    assert rewriting.n_changes == operators.count("MatMul") == n_norms
    # Zeros are added to each product of a factor and a value, so nothing is rounded otherwise.
    assert_same_function(rewriting, graph, batch, exact=True)


def test_factors_of_their_own_for_each_image_of_a_batch() -> None:
    graph = SmallGraph(4, whole=False)
    graph.input(3, name="c")
    graph.conditional_norm(graph.input(4, 48, 64), "c", 3, 4)
    rewriting = apply_pass(make_norm_products, graph.model())
    conditions = graph.feeds(5)["c"]
    assert len(np.unique(conditions, axis=0)) == 5
    assert_same_function(rewriting, graph, 5)


@settings(max_examples=8)
@given(seed=SEEDS, batch=BATCHES, channels=st.tuples(CHANNELS, CHANNELS), size=LARGE_SIZES, has_bias=st.booleans())
def test_a_pointwise_convolution_between_two_norms_becomes_part_of_a_matrix(
    seed: int, batch: int, channels: tuple[int, int], size: tuple[int, int], has_bias: bool
) -> None:
    graph = _build_pair(seed, channels, size, (1, 1), bias=has_bias)
    rewriting = apply_pass(make_norm_products, graph.model())
    operators = list_operators(rewriting.after)
    assert rewriting.n_changes == 2
    # Two products of pixels, and one that moves the first offset behind the convolution.
    assert [operators.count(each) for each in ("MatMul", "Max", "Conv", "Relu")] == [3, 1, 0, 0]
    assert_same_function(rewriting, graph, batch, exact=True)


def test_offsets_of_their_own_for_each_image_between_two_norms() -> None:
    graph = _build_pair(5, (4, 3), (48, 64), (1, 1), whole=False)
    rewriting = apply_pass(make_norm_products, graph.model())
    assert list_operators(rewriting.after).count("Max") == 1
    assert_same_function(rewriting, graph, 5)


def test_a_larger_kernel_stays_between_two_norms() -> None:
    graph = _build_pair(6, (4, 3), (48, 64), (3, 3))
    rewriting = apply_pass(make_norm_products, graph.model())
    assert [list_operators(rewriting.after).count(each) for each in ("MatMul", "Conv", "Relu")] == [2, 1, 1]
    assert_same_function(rewriting, graph, 3, exact=True)


@pytest.mark.parametrize("shared", ["norm", "relu", "convolution"])
def test_values_that_others_use_stay(shared: str) -> None:
    graph = _build_pair(7, (3, 3), (48, 64), (1, 1))
    relu, convolution = (next(each for each in graph.nodes if each.op_type == kind) for kind in ("Relu", "Conv"))
    value = {"norm": relu.input[0], "relu": relu.output[0], "convolution": convolution.output[0]}[shared]
    graph.node("Add", graph.nodes[-1].output[0], value)
    rewriting = apply_pass(make_norm_products, graph.model())
    assert [list_operators(rewriting.after).count(each) for each in ("Max", "Conv", "Relu")] == [0, 1, 1]
    assert_same_function(rewriting, graph, 3, exact=True)


def _build_pair(
    seed: int,
    channels: tuple[int, int],
    size: tuple[int, int],
    kernel: tuple[int, int],
    *,
    bias: bool = True,
    whole: bool = True,
) -> SmallGraph:
    """Build two conditional norms with a ReLU and a convolution between them."""
    graph = SmallGraph(seed, whole=whole)
    graph.input(3, name="c")
    image = graph.conditional_norm(graph.input(channels[0], *size), "c", 3, channels[0])
    convolved = graph.conv(graph.node("Relu", image), *channels, kernel, bias=bias)
    graph.conditional_norm(convolved, "c", 3, channels[1])
    return graph


@pytest.mark.parametrize("size", [(31, 96), (4, 12)])
def test_small_images_stay_as_they_are(size: tuple[int, int]) -> None:
    graph = SmallGraph()
    graph.input(3, name="c")
    graph.conditional_norm(graph.input(2, *size), "c", 3, 2)
    check_untouched(make_norm_products, graph.model())


def test_sums_and_constant_factors_stay_as_they_are() -> None:
    graph = SmallGraph()
    image = graph.input(2, 48, 64)
    scaled = graph.node("Mul", image, graph.constant(np.ones((1, 2, 1, 1), np.float32)))
    graph.node("Add", scaled, image)
    check_untouched(make_norm_products, graph.model())
