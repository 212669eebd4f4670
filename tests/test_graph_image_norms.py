"""Conditional norms as batch norms of all images of a batch at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.compiler import list_passes
from export.graph.image_norms import make_batch_norms
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

if TYPE_CHECKING:
    from pxdbg_runtime.model.card import Precision, Target


# A factor and an image of one pixel cannot be told apart.
@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, size=SIZES.filter(lambda size: size != (1, 1)),
    n_norms=st.integers(1, 2), whole=st.booleans(),
)  # fmt: skip
def test_norms_of_a_batch(
    seed: int, batch: int, n_channels: int, size: tuple[int, int], n_norms: int, whole: bool
) -> None:
    graph = SmallGraph(seed, whole=whole)
    graph.input(3, name="c")
    image = graph.input(n_channels, *size)
    for _ in range(n_norms):
        image = graph.node("Relu", graph.conditional_norm(image, "c", 3, n_channels))
    rewriting = apply_pass(make_batch_norms, graph.model())
    operators = list_operators(rewriting.after)
    assert rewriting.n_changes == operators.count("BatchNormalization") == n_norms
    assert_same_function(rewriting, graph, batch, exact=whole)


def test_factors_of_their_own_for_each_image() -> None:
    graph = SmallGraph(4, whole=False)
    graph.input(3, name="c")
    graph.conditional_norm(graph.input(4, 5, 6), "c", 3, 4)
    rewriting = apply_pass(make_batch_norms, graph.model())
    assert len(np.unique(graph.feeds(5)["c"], axis=0)) == 5
    assert_same_function(rewriting, graph, 5)


def test_images_of_unknown_size_stay_as_they_are() -> None:
    graph = SmallGraph()
    graph.input(3, name="c")
    graph.conditional_norm(graph.input(2, 4, "w"), "c", 3, 2)
    check_untouched(make_batch_norms, graph.model())


@pytest.mark.parametrize(
    ("target", "precision"), [("cpu", "float32"), ("cpu", "float16"), ("cuda", "float32"), ("cuda", "float16")]
)
def test_float32_on_a_gpu_alone_has_them(target: Target, precision: Precision) -> None:
    is_used = any(each.apply is make_batch_norms for each in list_passes(target, precision))
    assert is_used is ((target, precision) == ("cuda", "float32"))
