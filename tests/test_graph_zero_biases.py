"""Biases of zeros, added where cuDNN is faster with them and removed where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from export.graph.zero_biases import choose_zero_biases
from tests.small_graphs import SmallGraph, apply_pass, assert_same_function, check_untouched


@pytest.mark.parametrize(
    ("kernel", "has_zeros", "n_inputs"), [((1, 1), False, 3), ((3, 3), True, 2), ((1, 3), True, 2)]
)
def test_the_bias_depends_on_the_kernel(kernel: tuple[int, int], has_zeros: bool, n_inputs: int) -> None:
    graph = SmallGraph()
    _convolve(graph, kernel, np.zeros(4, np.float32) if has_zeros else None)
    rewriting = apply_pass(choose_zero_biases, graph.model())
    (convolution,) = rewriting.after.graph.node
    assert (rewriting.n_changes, len(convolution.input)) == (1, n_inputs)
    assert len(rewriting.after.graph.initializer) == n_inputs - 1
    assert_same_function(rewriting, graph, 2, exact=True)


def test_two_convolutions_have_zeros_of_their_own() -> None:
    graph = SmallGraph()
    first = _convolve(graph, (1, 1), None)
    graph.conv(first, 4, 5, (1, 1), bias=False)
    rewriting = apply_pass(choose_zero_biases, graph.model())
    assert rewriting.n_changes == 2
    assert_same_function(rewriting, graph, 2, exact=True)


@pytest.mark.parametrize(
    ("kernel", "bias", "group"),
    [((1, 1), [0, 0, 0, 0], 1), ((3, 3), None, 1), ((3, 3), [0, 0, 1, 0], 1), ((1, 1), None, 2)],
)
def test_others_stay_as_they_are(kernel: tuple[int, int], bias: list[float] | None, group: int) -> None:
    graph = SmallGraph()
    _convolve(graph, kernel, None if bias is None else np.array(bias, np.float32), group)
    check_untouched(choose_zero_biases, graph.model())


def _convolve(graph: SmallGraph, kernel: tuple[int, int], bias: np.ndarray | None, group: int = 1) -> str:
    image = graph.input(2 * group, 6, 8)
    if bias is None:
        return graph.conv(image, 2, 4, kernel, bias=False, group=group)
    weight = graph.constant(graph.filters(4, 2, *kernel))
    pads = [kernel[0] // 2, kernel[1] // 2] * 2
    return graph.node("Conv", image, weight, graph.constant(bias), pads=pads, group=group)
