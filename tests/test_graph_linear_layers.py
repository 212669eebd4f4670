"""A linear layer and the convolution after it become one linear layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph import count_multiply_accumulates
from export.graph.linear_layers import compose_linear_layers
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    apply_pass,
    assert_same_function,
    cases,
    check_untouched,
    find_same_pads,
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

PAIRS: Final = st.tuples(st.integers(1, 2), st.integers(1, 2))
PADS: Final = st.tuples(*[st.integers(0, 2)] * 4)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_each=st.integers(1, 2), groups=st.integers(1, 3), n_out=st.integers(1, 2), size=SIZES,
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), pads=PADS, strides=PAIRS, dilations=PAIRS,
    bias=st.booleans(), is_transposed=st.booleans(), first_axis=st.sampled_from([0, -1]), whole=st.booleans(),
)  # fmt: skip
def test_whatever_the_convolution(
    seed: int,
    batch: int,
    n_each: int,
    groups: int,
    n_out: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    pads: tuple[int, int, int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    bias: bool,
    is_transposed: bool,
    first_axis: int,
    whole: bool,
) -> None:
    graph = SmallGraph(seed, whole=whole)
    n_channels, spans = n_each * groups, [2 * (extent - 1) + 1 for extent in kernel]
    height, width = size[0] + spans[0], size[1] + spans[1]
    flat = graph.linear(graph.input(1), 1, n_channels * height * width, is_transposed=is_transposed, bias=bias)
    images = graph.reshape(flat, first_axis, n_channels, height, width)
    graph.conv(
        images, n_each, n_out * groups, kernel, bias=bias, pads=pads, strides=strides, dilations=dilations, group=groups
    )
    rewriting = apply_pass(compose_linear_layers, graph.model())
    # With one latent an output costs one product in place of a whole filter: that is always less.
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after) == ["Gemm", "Reshape"]
    assert_same_function(rewriting, graph, batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_latents=st.integers(1, 30), n_in=CHANNELS, n_out=CHANNELS, size=SIZES,
    kernel=st.sampled_from([(1, 1), (3, 1), (3, 3)]),
)  # fmt: skip
def test_they_do_where_it_costs_less(
    seed: int, batch: int, n_latents: int, n_in: int, n_out: int, size: tuple[int, int], kernel: tuple[int, int]
) -> None:
    graph = SmallGraph(seed)
    height, width = size
    n_pixels = height * width
    flat = graph.linear(graph.input(n_latents), n_latents, n_in * n_pixels)
    graph.conv(graph.reshape(flat, -1, n_in, *size), n_in, n_out, kernel, pads=find_same_pads(kernel))
    rewriting = apply_pass(compose_linear_layers, graph.model())
    apart = n_latents * n_in * n_pixels + n_out * n_pixels * n_in * kernel[0] * kernel[1]
    together = n_latents * n_out * n_pixels
    assert count_multiply_accumulates(rewriting.before) == apart
    assert count_multiply_accumulates(rewriting.after) == min(apart, together)
    assert rewriting.n_changes == (together < apart)
    assert_same_function(rewriting, graph, batch)


def test_what_follows_stays() -> None:
    graph = SmallGraph()
    images = graph.reshape(graph.linear(graph.input(2), 2, 48), 0, 2, 4, 6)
    first = graph.node("Relu", graph.conv(images, 2, 2))
    graph.conv(first, 2, 3)
    rewriting = apply_pass(compose_linear_layers, graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after) == ["Gemm", "Reshape", "Relu", "Conv"]
    assert_same_function(rewriting, graph, 2)


def _it_would_cost_more(graph: SmallGraph) -> onnx.ModelProto:
    images = graph.reshape(graph.linear(graph.input(100), 100, 24), -1, 1, 4, 6)
    return graph.model(graph.conv(images, 1, 8))


def _it_would_cost_the_same(graph: SmallGraph) -> onnx.ModelProto:
    # 2 x 24 + 24 x 2 products, and 2 x 48 products.
    images = graph.reshape(graph.linear(graph.input(2), 2, 24), -1, 1, 4, 6)
    return graph.model(graph.conv(images, 1, 2, (1, 1)))


def _others_use_the_images(graph: SmallGraph) -> onnx.ModelProto:
    images = graph.reshape(graph.linear(graph.input(1), 1, 24), -1, 1, 4, 6)
    return graph.model(graph.conv(images, 1, 1), graph.node("Relu", images))


def _others_use_the_layer(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.linear(graph.input(1), 1, 24)
    return graph.model(graph.conv(graph.reshape(flat, -1, 1, 4, 6), 1, 1), graph.node("Relu", flat))


def _the_graph_gives_out_the_images(graph: SmallGraph) -> onnx.ModelProto:
    images = graph.reshape(graph.linear(graph.input(1), 1, 24), -1, 1, 4, 6)
    return graph.model(graph.conv(images, 1, 1), images)


def _the_graph_gives_out_the_layer(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.linear(graph.input(1), 1, 24)
    return graph.model(graph.conv(graph.reshape(flat, -1, 1, 4, 6), 1, 1), flat)


def _something_lies_between(graph: SmallGraph) -> onnx.ModelProto:
    images = graph.reshape(graph.node("Relu", graph.linear(graph.input(1), 1, 24)), -1, 1, 4, 6)
    return graph.model(graph.conv(images, 1, 1))


def _something_lies_between_the_images_and_the_convolution(graph: SmallGraph) -> onnx.ModelProto:
    images = graph.reshape(graph.linear(graph.input(1), 1, 24), -1, 1, 4, 6)
    return graph.model(graph.conv(graph.node("Relu", images), 1, 1))


def _the_layer_is_scaled(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.node("Gemm", graph.input(1), graph.constant(graph.values(1, 24)), alpha=2.0)
    return graph.model(graph.conv(graph.reshape(flat, -1, 1, 4, 6), 1, 1))


def _the_layer_is_a_product_alone(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.node("MatMul", graph.input(1), graph.constant(graph.values(1, 24)))
    return graph.model(graph.conv(graph.reshape(flat, -1, 1, 4, 6), 1, 1))


def _weights_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    weight = graph.node("Abs", graph.constant(graph.values(1, 24)))
    flat = graph.node("Gemm", graph.input(1), weight)
    return graph.model(graph.conv(graph.reshape(flat, -1, 1, 4, 6), 1, 1))


def _filters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    filters = graph.node("Abs", graph.constant(graph.values(1, 1, 3, 3)))
    images = graph.reshape(graph.linear(graph.input(1), 1, 24), -1, 1, 4, 6)
    return graph.model(graph.node("Conv", images, filters))


def _each_output_is_seen_as_several_images(graph: SmallGraph) -> onnx.ModelProto:
    images = graph.reshape(graph.linear(graph.input(1), 1, 48), -1, 1, 4, 6)
    return graph.model(graph.conv(images, 1, 1))


def _outputs_that_are_seen_as_pixels_in_another_way(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.linear(graph.input(1), 1, 24)
    return graph.model(graph.conv(graph.node("Unsqueeze", flat, graph.constant(np.array([2, 3]))), 24, 2, (1, 1)))


@pytest.mark.parametrize(
    "write",
    cases(
        _it_would_cost_more,
        _it_would_cost_the_same,
        _others_use_the_images,
        _others_use_the_layer,
        _the_graph_gives_out_the_images,
        _the_graph_gives_out_the_layer,
        _something_lies_between,
        _something_lies_between_the_images_and_the_convolution,
        _the_layer_is_scaled,
        _the_layer_is_a_product_alone,
        _weights_that_are_computed,
        _filters_that_are_computed,
        _each_output_is_seen_as_several_images,
        _outputs_that_are_seen_as_pixels_in_another_way,
        **{
            "no linear layer": lambda graph: graph.model(graph.conv(graph.reshape(graph.input(24), -1, 1, 4, 6), 1, 1)),
            "no convolution": lambda graph: graph.model(
                graph.node("Relu", graph.reshape(graph.linear(graph.input(1), 1, 24), -1, 1, 4, 6))
            ),
        },
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(compose_linear_layers, write(SmallGraph()))
