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
