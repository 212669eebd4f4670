"""Batch norms fold into the layers before them, and shortcuts compensate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from export.graph.batch_norms import fold_batch_norms
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    KERNELS,
    SEEDS,
    SIZES,
    SmallGraph,
    apply_pass,
    assert_same_function,
    list_operators,
)

if TYPE_CHECKING:
    import onnx


def check_folded(graph: SmallGraph, model: onnx.ModelProto, batch: int, n_changes: int = 1) -> None:
    rewriting = apply_pass(fold_batch_norms, model)
    assert rewriting.n_changes == n_changes
    expected = [operator for operator in list_operators(model) if operator != "BatchNormalization"]
    assert list_operators(rewriting.after) == expected
    assert_same_function(rewriting, graph, batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, kernel=KERNELS, stride=st.integers(1, 2),
    bias=st.booleans(), follows=st.booleans(),
)  # fmt: skip
def test_of_a_convolution(
    seed: int,
    batch: int,
    n_in: int,
    n_out: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    bias: bool,
    follows: bool,
) -> None:
    graph = SmallGraph(seed, whole=False)
    image = graph.conv(graph.input(n_in, *size), n_in, n_out, kernel, bias=bias, strides=[stride, stride])
    norm = graph.batch_norm(image, n_out)
    if follows:
        graph.node("Relu", norm)
    check_folded(graph, graph.model(), batch)


@FEW
@given(seed=SEEDS, batch=BATCHES, n_each=st.integers(1, 3), groups=st.integers(1, 3), epsilon=st.floats(1e-6, 0.5))
def test_of_a_convolution_in_groups_with_any_epsilon(
    seed: int, batch: int, n_each: int, groups: int, epsilon: float
) -> None:
    graph = SmallGraph(seed, whole=False)
    image = graph.conv(graph.input(n_each * groups, 4, 6), n_each, 2 * groups, group=groups)
    graph.batch_norm(image, 2 * groups, epsilon=epsilon)
    check_folded(graph, graph.model(), batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_latents=st.integers(1, 6), n_channels=CHANNELS, size=SIZES, bias=st.booleans(),
    is_transposed=st.booleans(), first_axis=st.sampled_from([0, -1]),
)  # fmt: skip
def test_of_a_linear_layer_seen_as_images(
    seed: int,
    batch: int,
    n_latents: int,
    n_channels: int,
    size: tuple[int, int],
    bias: bool,
    is_transposed: bool,
    first_axis: int,
) -> None:
    graph = SmallGraph(seed, whole=False)
    n_outputs = n_channels * size[0] * size[1]
    flat = graph.linear(graph.input(n_latents), n_latents, n_outputs, is_transposed=is_transposed, bias=bias)
    graph.batch_norm(graph.reshape(flat, first_axis, n_channels, *size), n_channels)
    check_folded(graph, graph.model(), batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, n_summands=st.integers(2, 4),
    with_linear=st.booleans(),
)  # fmt: skip
def test_of_a_sum_of_layers(
    seed: int, batch: int, n_in: int, n_out: int, size: tuple[int, int], n_summands: int, with_linear: bool
) -> None:
    graph = SmallGraph(seed, whole=False)
    image = graph.input(n_in, *size)
    kernels = [(1, 1), (3, 3), (5, 1), (1, 7)]
    parts = [graph.conv(image, n_in, n_out, kernels[index], bias=index % 2 == 0) for index in range(n_summands)]
    if with_linear:
        n_outputs = n_out * size[0] * size[1]
        parts.append(graph.reshape(graph.linear(graph.input(3, name="w"), 3, n_outputs), 0, n_out, *size))
    total = parts[0]
    for part in parts[1:]:
        total = graph.node("Add", total, part)
    graph.batch_norm(total, n_out)
    check_folded(graph, graph.model(), batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, n_out=CHANNELS, n_doublings=st.integers(0, 2), bias=st.booleans(),
    n_shortcuts=st.integers(1, 2),
)  # fmt: skip
def test_the_shortcuts_of_a_block_take_it_back(
    seed: int, batch: int, n_channels: int, n_out: int, n_doublings: int, bias: bool, n_shortcuts: int
) -> None:
    graph = SmallGraph(seed, whole=False)
    image = graph.conv(graph.input(2, 2, 3), 2, n_channels, bias=bias)
    main = graph.node("Relu", graph.batch_norm(image, n_channels))
    shared = image
    for _ in range(n_doublings):
        main, shared = graph.upsample(main), graph.upsample(shared)
    result = graph.conv(main, n_channels, n_out)
    for _ in range(n_shortcuts):
        result = graph.node("Add", result, graph.conv(shared, n_channels, n_out, (1, 1), bias=bias))
    check_folded(graph, graph.model(), batch)


@FEW
@given(seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, doubled=st.booleans())
def test_they_do_beside_a_sum_and_beside_a_linear_layer(seed: int, batch: int, n_channels: int, doubled: bool) -> None:
    graph = SmallGraph(seed, whole=False)
    first = graph.reshape(graph.linear(graph.input(4), 4, 6 * n_channels), -1, n_channels, 2, 3)
    image = first
    for _ in range(2):
        main = graph.conv(graph.node("Relu", graph.batch_norm(image, n_channels)), n_channels, n_channels)
        before = graph.upsample(image) if doubled else image
        shortcut = graph.conv(before, n_channels, n_channels, (1, 1))
        image = graph.node("Add", graph.upsample(main) if doubled else main, shortcut)
        if doubled:
            image = graph.conv(image, n_channels, n_channels, (1, 1))
    check_folded(graph, graph.model(), batch, n_changes=2)


@FEW
@given(seed=SEEDS, size=st.floats(-15, 15), n_channels=CHANNELS)
def test_an_offset_that_does_not_dwarf_the_factor_costs_no_digits(seed: int, size: float, n_channels: int) -> None:
    graph = SmallGraph(seed, whole=False)
    image = graph.conv(graph.input(2, 4, 6), 2, n_channels)
    gamma = graph.random.uniform(0.5, 1.5, n_channels)
    norm = graph.batch_norm(image, n_channels, gamma=gamma, beta=size * gamma)
    graph.node("Add", graph.conv(norm, n_channels, 2), graph.conv(image, n_channels, 2, (1, 1)))
    check_folded(graph, graph.model(), 2)


@FEW
@given(seed=SEEDS, n_norms=st.integers(2, 3))
def test_one_after_another(seed: int, n_norms: int) -> None:
    graph = SmallGraph(seed, whole=False)
    value = graph.conv(graph.input(2, 4, 6), 2, 3)
    for _ in range(n_norms):
        value = graph.batch_norm(value, 3)
    check_folded(graph, graph.model(), 2, n_changes=n_norms)


def test_a_factor_of_zero_is_folded_where_nothing_else_needs_the_input() -> None:
    graph = SmallGraph(whole=False)
    graph.batch_norm(graph.conv(graph.input(2, 4, 6), 2, 2), 2, gamma=np.array([0.0, 1.0]), beta=np.array([0.5, 0.0]))
    check_folded(graph, graph.model(), 2)


def test_weights_that_two_convolutions_share_change_for_one_of_them() -> None:
    graph = SmallGraph(whole=False)
    image = graph.input(2, 4, 6)
    weight = graph.constant(graph.values(3, 2, 1, 1))
    first, second = graph.node("Conv", image, weight), graph.node("Conv", image, weight)
    check_folded(graph, graph.model(graph.batch_norm(first, 3), second), 2)


def test_the_result_keeps_its_name_where_the_graph_gives_it_out() -> None:
    graph = SmallGraph(whole=False)
    model = graph.model(graph.batch_norm(graph.conv(graph.input(2, 4, 6), 2, 2), 2))
    rewriting = apply_pass(fold_batch_norms, model)
    assert rewriting.n_changes == 1
    assert [each.name for each in rewriting.after.graph.output] == ["val_1"]
