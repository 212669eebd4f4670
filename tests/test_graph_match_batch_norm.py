"""Match batch norms, and graphs in which none can be folded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.batch_norms import fold_batch_norms, match_batch_norm
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    assert_close,
    cases,
    check_untouched,
    evaluate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx


def image_of(graph: SmallGraph) -> str:
    return graph.conv(graph.input(2, 4, 6), 2, 2)


def _an_offset_that_dwarfs_the_factor_for_others(graph: SmallGraph) -> onnx.ModelProto:
    image = image_of(graph)
    norm = graph.batch_norm(image, 2, gamma=np.array([1.0, 0.1]), beta=np.array([1.0, -1.7]))
    return graph.model(norm, graph.conv(image, 2, 3, (1, 1)))


def _a_factor_of_zero_for_others(graph: SmallGraph) -> onnx.ModelProto:
    image = image_of(graph)
    norm = graph.batch_norm(image, 2, gamma=np.array([1.0, 0.0]), beta=np.array([1.0, 0.0]))
    return graph.model(norm, graph.conv(image, 2, 3, (1, 1)))


def _a_tiny_factor_for_others(graph: SmallGraph) -> onnx.ModelProto:
    image = image_of(graph)
    norm = graph.batch_norm(image, 2, gamma=np.array([1.0, 1e-39]), beta=np.array([1.0, 0.0]))
    return graph.model(norm, graph.conv(image, 2, 3, (1, 1)))


def _a_summand_that_others_use(graph: SmallGraph) -> onnx.ModelProto:
    first = image_of(graph)
    total = graph.node("Add", first, graph.conv("z", 2, 2))
    return graph.model(graph.batch_norm(total, 2), graph.conv(first, 2, 3, (1, 1)))


def _a_summand_that_the_graph_gives_out(graph: SmallGraph) -> onnx.ModelProto:
    first = image_of(graph)
    return graph.model(graph.batch_norm(graph.node("Add", first, graph.conv("z", 2, 2)), 2), first)


def _a_sum_that_broadcasts(graph: SmallGraph) -> onnx.ModelProto:
    pixel = graph.conv(graph.input(2, 1, 1, name="pixel"), 2, 2, (1, 1))
    return graph.model(graph.batch_norm(graph.node("Add", image_of(graph), pixel), 2))


def _a_sum_with_a_constant(graph: SmallGraph) -> onnx.ModelProto:
    total = graph.node("Add", image_of(graph), graph.constant(graph.values(1, 2, 1, 1)))
    return graph.model(graph.batch_norm(total, 2))


def _a_linear_layer_that_others_use(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.linear(graph.input(3), 3, 12)
    return graph.model(graph.batch_norm(graph.reshape(flat, -1, 2, 2, 3), 2), flat)


def _a_linear_layer_seen_as_more_images_than_it_was_given(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.linear(graph.input(3), 3, 24)
    return graph.model(graph.batch_norm(graph.reshape(flat, -1, 2, 2, 3), 2))


def _a_linear_layer_seen_as_a_sequence(graph: SmallGraph) -> onnx.ModelProto:
    flat = graph.linear(graph.input(3), 3, 12)
    return graph.model(graph.batch_norm(graph.reshape(flat, -1, 2, 6), 2))


def _training(graph: SmallGraph) -> onnx.ModelProto:
    norm = graph.batch_norm(image_of(graph), 2, training_mode=1)
    graph.nodes[-1].output.extend(["mean", "variance"])
    return graph.model(norm)


def _parameters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    parameter = graph.node("Abs", graph.constant(graph.values(2)))
    return graph.model(graph.node("BatchNormalization", image_of(graph), *[parameter] * 4))


def _filters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    filters = graph.node("Abs", graph.constant(graph.values(2, 2, 3, 3)))
    return graph.model(graph.batch_norm(graph.node("Conv", graph.input(2, 4, 6), filters), 2))


def _nothing_to_fold(graph: SmallGraph) -> onnx.ModelProto:
    return graph.model(graph.node("Relu", image_of(graph)))


OTHER_USERS: Final[dict[str, Callable[[SmallGraph, str], onnx.ModelProto]]] = {
    "another user that sees neighbours": lambda graph, image: graph.model(
        graph.batch_norm(image, 2), graph.conv(image, 2, 3, (3, 3))
    ),
    "another user that pads": lambda graph, image: graph.model(
        graph.batch_norm(image, 2), graph.conv(image, 2, 3, (1, 1), pads=(1, 0, 0, 0))
    ),
    "another user that sees neighbours of the doubled image": lambda graph, image: graph.model(
        graph.batch_norm(image, 2), graph.conv(graph.upsample(image), 2, 3, (3, 3))
    ),
    "another user that is no convolution": lambda graph, image: graph.model(
        graph.batch_norm(image, 2), graph.node("Relu", image)
    ),
    "another user behind another resize": lambda graph, image: graph.model(
        graph.batch_norm(image, 2), graph.conv(graph.upsample(image, mode="linear"), 2, 3, (1, 1))
    ),
    "two of one convolution": lambda graph, image: graph.model(graph.batch_norm(image, 2), graph.batch_norm(image, 2)),
    "a convolution that the graph gives out": lambda graph, image: graph.model(graph.batch_norm(image, 2), image),
    "a convolution whose double the graph gives out": lambda graph, image: graph.model(
        graph.batch_norm(image, 2), graph.upsample(image)
    ),
    "a convolution added to itself": lambda graph, image: graph.model(
        graph.batch_norm(graph.node("Add", image, image), 2)
    ),
}
"""Graphs in which something else uses the convolution before a batch norm."""


@FEW
@given(seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, size=SIZES, epsilon=st.floats(1e-6, 0.5))
def test_a_batch_norm_is_a_line_for_each_channel(
    seed: int, batch: int, n_channels: int, size: tuple[int, int], epsilon: float
) -> None:
    graph = SmallGraph(seed, whole=False)
    graph.batch_norm(graph.input(n_channels, *size), n_channels, epsilon=epsilon)
    model = graph.model()
    lines = match_batch_norm(ir.from_proto(model).graph[0])
    assert lines is not None
    feeds = graph.feeds(batch)
    factor, offset = (each.reshape(-1, 1, 1) for each in (lines.factor, lines.offset))
    assert_close((feeds["z"] * factor + offset).astype(np.float32), evaluate(model, feeds)[0])


@pytest.mark.parametrize(
    ("gamma", "beta", "is_invertible"),
    [
        *((1.0, 15.9, True), (-1.0, 15.9, True), (1.0, -16.1, False), (0.01, 0.2, False), (0.0, 0.0, False)),
        *((1e-3, 0.0, True), (-1e-3, 0.0, True), (1e-7, 0.0, False), (1e-39, 0.0, False)),
    ],
)
def test_it_can_be_taken_back_where_its_factor_is_not_tiny_and_no_offset_dwarfs_it(
    gamma: float, beta: float, is_invertible: bool
) -> None:
    graph = SmallGraph(whole=False)
    graph.batch_norm(graph.input(2, 4, 6), 2, gamma=np.array([1.0, gamma]), beta=np.array([0.0, beta]))
    lines = match_batch_norm(ir.from_proto(graph.model()).graph[0])
    assert lines is not None
    assert lines.is_invertible is is_invertible


@pytest.mark.parametrize("write", cases(_training, _parameters_that_are_computed, _nothing_to_fold))
def test_other_nodes_are_no_lines(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    assert match_batch_norm(ir.from_proto(write(SmallGraph())).graph[-1]) is None


def test_nor_are_those_of_another_domain_or_that_say_that_they_train() -> None:
    graph = SmallGraph()
    graph.batch_norm(graph.input(2, 4, 6), 2, training_mode=1)
    (node,) = ir.from_proto(graph.model()).graph
    assert match_batch_norm(node) is None
    node.attributes.pop("training_mode")
    assert match_batch_norm(node) is not None
    node.domain = "elsewhere"
    assert match_batch_norm(node) is None


@pytest.mark.parametrize(
    "write",
    cases(
        _an_offset_that_dwarfs_the_factor_for_others,
        _a_factor_of_zero_for_others,
        _a_tiny_factor_for_others,
        _a_summand_that_others_use,
        _a_summand_that_the_graph_gives_out,
        _a_sum_that_broadcasts,
        _a_sum_with_a_constant,
        _a_linear_layer_that_others_use,
        _a_linear_layer_seen_as_more_images_than_it_was_given,
        _a_linear_layer_seen_as_a_sequence,
        _training,
        _parameters_that_are_computed,
        _filters_that_are_computed,
        _nothing_to_fold,
        **{
            "something that is no layer": lambda graph: graph.model(
                graph.batch_norm(graph.node("Relu", image_of(graph)), 2)
            ),
            "the input itself": lambda graph: graph.model(graph.batch_norm(graph.input(2, 4, 6), 2)),
            "a doubled convolution": lambda graph: graph.model(graph.batch_norm(graph.upsample(image_of(graph)), 2)),
        },
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(fold_batch_norms, write(SmallGraph()))


@pytest.mark.parametrize("kind", OTHER_USERS)
def test_other_users_of_the_convolution_keep_a_batch_norm_from_folding(kind: str) -> None:
    graph = SmallGraph()
    check_untouched(fold_batch_norms, OTHER_USERS[kind](graph, image_of(graph)))
