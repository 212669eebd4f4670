"""Conditional batch norms: one linear layer for all, and one operator for each, image by image."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from export.graph.conditional_norms import merge_conditional_norms
from export.graph.image_by_image import compute_image_by_image
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    apply_pass,
    assert_close,
    assert_same_function,
    cases,
    check_untouched,
    evaluate,
    list_operators,
    run_by_onnxruntime,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

AXES = np.array([2, 3], np.int64)
LARGE_SIZES = SIZES.filter(lambda size: size != (1, 1))
"""A norm of images of one pixel could not be told from a sum of vectors."""


def norm(
    graph: SmallGraph,
    image: str,
    n_channels: int,
    *,
    order: Sequence[int] = (0, 1),
    bias: bool = False,
    condition: str = "c",
) -> str:
    """Write a conditional norm of an image, of three conditions, with any order of inputs."""
    gain = graph.linear(condition, 3, n_channels, bias=bias)
    offset = graph.linear(condition, 3, n_channels, bias=bias)
    factor = graph.node(
        "Unsqueeze", graph.node("Add", gain, graph.constant(np.array(1, np.float32))), graph.constant(AXES)
    )
    product = graph.node("Mul", *(((image, factor), (factor, image))[order[0]]))
    spread = graph.node("Unsqueeze", offset, graph.constant(AXES))
    return graph.node("Add", *(((product, spread), (spread, product))[order[1]]))


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, size=LARGE_SIZES, orders=st.tuples(*[st.integers(0, 1)] * 2),
    before=st.sampled_from(["nothing", "convolution", "batch norm", "both"]), bias=st.booleans(),
    n_norms=st.integers(1, 3),
)  # fmt: skip
def test_all_norms_of_a_condition_have_one_layer(
    seed: int,
    batch: int,
    n_channels: int,
    size: tuple[int, int],
    orders: tuple[int, int],
    before: str,
    bias: bool,
    n_norms: int,
) -> None:
    graph = SmallGraph(seed, whole=False)
    graph.input(3, name="c")
    image = graph.input(n_channels, *size)
    for _ in range(n_norms):
        if before in {"convolution", "both"}:
            image = graph.conv(image, n_channels, n_channels, bias=True)
        if before in {"batch norm", "both"}:
            image = graph.batch_norm(image, n_channels)
        image = graph.node("Relu", norm(graph, image, n_channels, order=orders, bias=bias))
    rewriting = apply_pass(merge_conditional_norms, graph.model())
    assert rewriting.n_changes == n_norms
    assert list_operators(rewriting.after).count("Gemm") == 1
    assert "BatchNormalization" not in list_operators(rewriting.after)
    assert_same_function(rewriting, graph, batch)
    check_untouched(merge_conditional_norms, rewriting.after)


@FEW
@given(seed=SEEDS, batch=BATCHES, variance=st.sampled_from([0.0, 1e-12, 1.0]))
def test_statistics_may_be_extreme(seed: int, batch: int, variance: float) -> None:
    graph = SmallGraph(seed, whole=False)
    graph.input(3, name="c")
    image = graph.input(2, 3, 4)
    constants = (np.array([-1.5, 0.0]), np.array([0.0, 1.0]), np.array([0.1, -0.1]), np.array([variance, 1.0]))
    names = [graph.constant(each.astype(np.float32)) for each in constants]
    norm(graph, graph.node("BatchNormalization", image, *names, epsilon=1e-5), 2)
    rewriting = apply_pass(merge_conditional_norms, graph.model())
    assert rewriting.n_changes == 1
    assert_same_function(rewriting, graph, batch)


def test_others_may_use_what_is_normalised() -> None:
    graph = SmallGraph(whole=False)
    graph.input(3, name="c")
    image = graph.conv(graph.input(2, 4, 6), 2, 2)
    normalised = graph.batch_norm(image, 2)
    total = graph.node("Add", norm(graph, normalised, 2), graph.node("Relu", normalised))
    model = graph.model(total, image)
    rewriting = apply_pass(merge_conditional_norms, model)
    assert rewriting.n_changes == 1
    assert "BatchNormalization" in list_operators(rewriting.after)
    assert_same_function(rewriting, graph, 3)


def test_each_condition_has_a_layer() -> None:
    graph = SmallGraph(whole=False)
    graph.input(3, name="c")
    graph.input(3, name="d")
    first = norm(graph, graph.input(2, 4, 6), 2)
    norm(graph, graph.node("Relu", first), 2, condition=graph.node("Relu", "d"))
    rewriting = apply_pass(merge_conditional_norms, graph.model())
    assert rewriting.n_changes == 2
    assert list_operators(rewriting.after).count("Gemm") == 2
    assert_same_function(rewriting, graph, 2)


def _a_factor_that_is_not_linear(graph: SmallGraph) -> onnx.ModelProto:
    image, axes = graph.input(2, 4, 6), graph.constant(AXES)
    factor = graph.node("Unsqueeze", graph.node("Tanh", graph.linear("c", 3, 2)), axes)
    offset = graph.node("Unsqueeze", graph.linear("c", 3, 2), axes)
    return graph.model(graph.node("Add", graph.node("Mul", image, factor), offset))


def _factor_and_offset_of_two_conditions(graph: SmallGraph) -> onnx.ModelProto:
    image, axes = graph.input(2, 4, 6), graph.constant(AXES)
    factor = graph.node("Unsqueeze", graph.linear("c", 3, 2), axes)
    offset = graph.node("Unsqueeze", graph.linear(graph.node("Relu", "c"), 3, 2), axes)
    return graph.model(graph.node("Add", graph.node("Mul", image, factor), offset))


def _a_factor_of_each_pixel(graph: SmallGraph) -> onnx.ModelProto:
    image = graph.input(2, 4, 6)
    factor = graph.reshape(graph.linear("c", 3, 48), 0, 2, 4, 6)
    offset = graph.node("Unsqueeze", graph.linear("c", 3, 2), graph.constant(AXES))
    return graph.model(graph.node("Add", graph.node("Mul", image, factor), offset))


def _a_product_that_others_use(graph: SmallGraph) -> onnx.ModelProto:
    image, axes = graph.input(2, 4, 6), graph.constant(AXES)
    factor, offset = (graph.node("Unsqueeze", graph.linear("c", 3, 2), axes) for _ in range(2))
    product = graph.node("Mul", image, factor)
    return graph.model(graph.node("Add", product, offset), product)


@pytest.mark.parametrize(
    "write",
    cases(
        _a_factor_that_is_not_linear,
        _factor_and_offset_of_two_conditions,
        _a_factor_of_each_pixel,
        _a_product_that_others_use,
    ),
)
def test_other_graphs_are_not_merged(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    graph = SmallGraph()
    graph.input(3, name="c")
    check_untouched(merge_conditional_norms, write(graph))


@FEW
@given(seed=SEEDS, channels=st.lists(CHANNELS, min_size=2, max_size=4), size=LARGE_SIZES, shared=st.booleans())
@pytest.mark.slow
def test_images_of_a_batch_come_one_after_another(
    seed: int, channels: list[int], size: tuple[int, int], shared: bool
) -> None:
    graph = SmallGraph(seed, whole=False)
    graph.input(3, name="c")
    image = graph.input(channels[0], *size)
    kernel = graph.constant(graph.filters(channels[-1], channels[-1], 1, 1))
    for n_in, n_out in itertools.pairwise(channels):
        image = graph.conv(graph.node("Relu", norm(graph, image, n_in)), n_in, n_out)
    outputs = [graph.node("Conv", image, kernel)]
    if shared:
        outputs.append(graph.node("Tanh", graph.node("Conv", image, kernel)))
    rewriting = apply_pass(compute_image_by_image, graph.model(*outputs))
    assert rewriting.n_changes == len(channels) - 1
    assert list_operators(rewriting.after) == ["Scan"]
    for batch in (1, 2, 3):
        assert_same_function(rewriting, graph, batch)
        feeds = graph.feeds(batch)
        for after, before in zip(
            *(run_by_onnxruntime(each, feeds) for each in (rewriting.after, rewriting.before)), strict=True
        ):
            assert_close(after, before)
    check_untouched(compute_image_by_image, rewriting.after)


@pytest.mark.parametrize("n_norms", [2, 3])
def test_a_norm_may_be_of_the_result_of_another(n_norms: int) -> None:
    graph = SmallGraph()
    graph.input(3, name="c")
    image = graph.input(2, 4, 6)
    for _ in range(n_norms):
        image = norm(graph, image, 2)
    rewriting = apply_pass(compute_image_by_image, graph.model(graph.node("Relu", image)))
    assert rewriting.n_changes == n_norms
    assert list_operators(rewriting.after) == ["Scan"]
    assert_same_function(rewriting, graph, 3)
    feeds = graph.feeds(3)
    (after,), (before,) = (run_by_onnxruntime(each, feeds) for each in (rewriting.after, rewriting.before))
    assert_close(after, before)


def test_what_does_not_depend_on_the_batch_runs_once() -> None:
    graph = SmallGraph(whole=False)
    graph.input(3, name="c")
    image = graph.input(2, 4, 6)
    table = graph.node("Softmax", graph.constant(graph.values(1, 2, 1, 1)), axis=1)
    graph.node("Mul", norm(graph, image, 2), table)
    rewriting = apply_pass(compute_image_by_image, graph.model())
    assert list_operators(rewriting.after) == ["Softmax", "Scan"]
    assert_same_function(rewriting, graph, 3)


def _images_that_depend_on_each_other(graph: SmallGraph) -> onnx.ModelProto:
    return graph.model(graph.node("Softmax", norm(graph, graph.input(2, 4, 6), 2), axis=0))


def _an_output_of_the_whole_batch(graph: SmallGraph) -> onnx.ModelProto:
    image = norm(graph, graph.input(2, 4, 6), 2)
    return graph.model(graph.node("Relu", image), graph.node("ReduceMax", image, keepdims=1))


def _gathered_images(graph: SmallGraph) -> onnx.ModelProto:
    index = graph.node("Cast", graph.input(name="index"), to=TensorProto.INT64)
    return graph.model(graph.node("Gather", norm(graph, graph.input(2, 4, 6), 2), index))


def _images_gathered_by_several_axes(graph: SmallGraph) -> onnx.ModelProto:
    index = graph.node("Cast", graph.input(1, name="index"), to=TensorProto.INT64)
    return graph.model(graph.node("GatherND", norm(graph, graph.input(2, 4, 6), 2), index))


def _a_pixel_gathered_for_each_image(graph: SmallGraph) -> onnx.ModelProto:
    index = graph.node("Cast", graph.input(name="index"), to=TensorProto.INT64)
    return graph.model(graph.node("Gather", norm(graph, graph.input(2, 4, 6), 2), index, axis=3))


def _two_batches_in_one(graph: SmallGraph) -> onnx.ModelProto:
    image = norm(graph, graph.input(2, 4, 6), 2)
    return name_first_axes(graph.model(graph.node("Concat", image, image, axis=-4)))


def _a_part_of_the_batch(graph: SmallGraph) -> onnx.ModelProto:
    return name_first_axes(graph.model(graph.slice(norm(graph, graph.input(2, 4, 6), 2), 1, 3, 0)))


def name_first_axes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let the first axis of each value be of any size, as a batch is in the graphs of PyTorch's exporter."""
    for value in (*model.graph.output, *model.graph.value_info):
        first = value.type.tensor_type.shape.dim[0]
        if not first.dim_param:
            first.dim_param = "m"
    return model


def _no_norm(graph: SmallGraph) -> onnx.ModelProto:
    return graph.model(graph.conv(graph.input(2, 4, 6), 2, 2))


@pytest.mark.parametrize(
    "write",
    cases(
        _images_that_depend_on_each_other,
        _an_output_of_the_whole_batch,
        _gathered_images,
        _images_gathered_by_several_axes,
        _a_pixel_gathered_for_each_image,
        _two_batches_in_one,
        _a_part_of_the_batch,
        _no_norm,
    ),
)
def test_other_batches_stay_whole(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    graph = SmallGraph()
    graph.input(3, name="c")
    check_untouched(compute_image_by_image, write(graph))


def test_the_merged_layer_is_closer_to_the_exact_result() -> None:
    """Constants fold in float64: float32 rounds each weight once."""
    graph = SmallGraph(3, whole=False)
    graph.input(3, name="c")
    norm(graph, graph.batch_norm(graph.input(4, 5, 6), 4), 4)
    rewriting = apply_pass(merge_conditional_norms, graph.model())
    feeds = graph.feeds(2)
    (after,), (before,) = evaluate(rewriting.after, feeds), evaluate(rewriting.before, feeds)
    assert_close(after, before, 2e-6)
