"""Work on upsampled images moves to the small images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph import count_multiply_accumulates
from export.graph.nodes import POINTWISE
from export.graph.upsampling import move_before_upsampling
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    COPYING_MODES,
    FEW,
    SEEDS,
    SIZES,
    SmallGraph,
    apply_pass,
    assert_same_function,
    cases,
    check_untouched,
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

MODES: Final = st.sampled_from(COPYING_MODES)


def check_moved(graph: SmallGraph, model: onnx.ModelProto, batch: int, n_changes: int, expected: list[str]) -> None:
    rewriting = apply_pass(move_before_upsampling, model)
    assert rewriting.n_changes == n_changes
    assert list_operators(rewriting.after) == expected
    assert_same_function(rewriting, graph, batch)


@FEW
@given(seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, bias=st.booleans(), modes=MODES)
def test_a_convolution_of_single_pixels_costs_a_quarter(
    seed: int, batch: int, n_in: int, n_out: int, size: tuple[int, int], bias: bool, modes: dict[str, str]
) -> None:
    graph = SmallGraph(seed)
    graph.conv(graph.upsample(graph.input(n_in, *size), **modes), n_in, n_out, (1, 1), bias=bias)
    model = graph.model()
    check_moved(graph, model, batch, 1, ["Conv", "Resize"])
    rewriting = apply_pass(move_before_upsampling, model)
    assert 4 * count_multiply_accumulates(rewriting.after) == count_multiply_accumulates(rewriting.before)


@pytest.mark.parametrize("operator", sorted(POINTWISE))
@pytest.mark.parametrize("modes", COPYING_MODES)
def test_pointwise_operators(operator: str, modes: dict[str, str]) -> None:
    graph = SmallGraph(whole=False)
    graph.node(operator, graph.upsample(graph.input(2, 3, 4), **modes))
    check_moved(graph, graph.model(), 2, 1, [operator, "Resize"])


@pytest.mark.parametrize("operator", ["LeakyRelu", "Elu"])
def test_their_attributes_go_with_them(operator: str) -> None:
    graph = SmallGraph(whole=False)
    graph.node(operator, graph.upsample(graph.input(2, 3, 4)), alpha=0.75)
    check_moved(graph, graph.model(), 2, 1, [operator, "Resize"])


@FEW
@given(seed=SEEDS, batch=BATCHES, n_channels=CHANNELS, size=SIZES, modes=st.tuples(MODES, MODES))
def test_sums(
    seed: int, batch: int, n_channels: int, size: tuple[int, int], modes: tuple[dict[str, str], dict[str, str]]
) -> None:
    graph = SmallGraph(seed)
    first, second = graph.input(n_channels, *size), graph.input(n_channels, *size, name="y")
    graph.node("Add", graph.upsample(first, **modes[0]), graph.upsample(second, **modes[1]))
    check_moved(graph, graph.model(), batch, 1, ["Add", "Resize"])


@FEW
@given(
    seed=SEEDS, batch=BATCHES, size=SIZES, n_doublings=st.integers(1, 2),
    work=st.lists(st.sampled_from(["Relu", "Abs", "Neg", "Conv"]), min_size=1, max_size=4),
)  # fmt: skip
def test_chains_move_before_any_number_of_doublings(
    seed: int, batch: int, size: tuple[int, int], n_doublings: int, work: list[str]
) -> None:
    graph = SmallGraph(seed)
    value = graph.input(2, *size)
    for _ in range(n_doublings):
        value = graph.upsample(value)
    for operator in work:
        value = graph.conv(value, 2, 2, (1, 1)) if operator == "Conv" else graph.node(operator, value)
    check_moved(graph, graph.model(), batch, n_doublings * len(work), [*work, *["Resize"] * n_doublings])


@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES)
def test_both_ways_of_a_residual_block(seed: int, batch: int, size: tuple[int, int]) -> None:
    graph = SmallGraph(seed)
    image = graph.input(2, *size)
    main = graph.conv(graph.node("Relu", graph.upsample(image)), 2, 3)
    shortcut = graph.conv(graph.upsample(image), 2, 3, (1, 1))
    graph.node("Add", main, shortcut)
    check_moved(graph, graph.model(), batch, 2, ["Relu", "Resize", "Conv", "Conv", "Resize", "Add"])


@FEW
@given(seed=SEEDS, batch=BATCHES, size=SIZES)
def test_the_doubled_image_stays_for_its_other_users(seed: int, batch: int, size: tuple[int, int]) -> None:
    graph = SmallGraph(seed)
    doubled = graph.upsample(graph.input(2, *size))
    model = graph.model(graph.node("Relu", doubled), graph.conv(doubled, 2, 2), doubled)
    rewriting = apply_pass(move_before_upsampling, model)
    assert rewriting.n_changes == 1
    assert sorted(list_operators(rewriting.after)) == ["Conv", "Relu", "Resize", "Resize"]
    assert_same_function(rewriting, graph, batch)


def _filters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    filters = graph.node("Abs", graph.constant(graph.values(2, 2, 1, 1)))
    return graph.model(graph.node("Conv", graph.upsample(graph.input(2, 3, 4)), filters))


def _doubling_that_shifts(graph: SmallGraph) -> onnx.ModelProto:
    modes = {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "floor"}
    return graph.model(graph.node("Relu", graph.upsample(graph.input(2, 3, 4), **modes)))


def _doubling_that_stretches(graph: SmallGraph) -> onnx.ModelProto:
    modes = {"coordinate_transformation_mode": "align_corners", "nearest_mode": "floor"}
    return graph.model(graph.node("Relu", graph.upsample(graph.input(2, 3, 4), **modes)))


def _a_size_in_place_of_a_scale(graph: SmallGraph) -> onnx.ModelProto:
    size = graph.constant(np.array([97, 2, 6, 8]))
    resized = graph.node("Resize", graph.input(2, 3, 4), "", "", size, **COPYING_MODES[0])
    return graph.model(graph.node("Relu", resized))


def _a_sum_with_an_image_that_is_not_doubled(graph: SmallGraph) -> onnx.ModelProto:
    doubled = graph.upsample(graph.input(2, 3, 4))
    return graph.model(graph.node("Add", doubled, graph.input(2, 6, 8, name="y")))


def _a_sum_that_broadcasts(graph: SmallGraph) -> onnx.ModelProto:
    first, second = graph.upsample(graph.input(2, 3, 4)), graph.upsample(graph.input(1, 3, 4, name="y"))
    return graph.model(graph.node("Add", first, second))


def _a_sum_of_images_of_unknown_batches(graph: SmallGraph) -> onnx.ModelProto:
    first, second = graph.upsample(graph.input(2, 3, 4)), graph.upsample(graph.input(2, 3, 4, name="y"))
    model = graph.model(graph.node("Add", first, second))
    model.graph.ClearField("value_info")
    return model


@pytest.mark.parametrize(
    "write",
    cases(
        _filters_that_are_computed,
        _doubling_that_shifts,
        _doubling_that_stretches,
        _a_size_in_place_of_a_scale,
        _a_sum_with_an_image_that_is_not_doubled,
        _a_sum_that_broadcasts,
        _a_sum_of_images_of_unknown_batches,
        **{
            "a convolution that sees neighbours": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 3, 4)), 2, 2)
            ),
            "a convolution that pads": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 3, 4)), 2, 2, (1, 1), pads=(0, 0, 1, 0))
            ),
            "a convolution with a stride": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 3, 4)), 2, 2, (1, 1), strides=[2, 1])
            ),
            "a convolution in groups": lambda graph: graph.model(
                graph.conv(graph.upsample(graph.input(2, 3, 4)), 1, 2, (1, 1), group=2)
            ),
            "an operator over several pixels": lambda graph: graph.model(
                graph.node("Softmax", graph.upsample(graph.input(2, 3, 4)), axis=3)
            ),
            "interpolation": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 3, 4), mode="linear"))
            ),
            "tripling": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 3, 4), (1, 1, 3, 3)))
            ),
            "doubling along one axis": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 3, 4), (1, 1, 1, 2)))
            ),
            "doubling of channels": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 3, 4), (1, 2, 2, 2)))
            ),
            "doubling of other axes": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 3, 4), axes=[0, 2, 1, 3]))
            ),
            "halving": lambda graph: graph.model(
                graph.node("Relu", graph.upsample(graph.input(2, 4, 4), (1, 1, 0.5, 0.5)))
            ),
            "a sum with a constant": lambda graph: graph.model(
                graph.node("Add", graph.upsample(graph.input(2, 3, 4)), graph.constant(graph.values(2, 1, 1)))
            ),
            "work before a doubling": lambda graph: graph.model(
                graph.upsample(graph.node("Relu", graph.input(2, 3, 4)))
            ),
        },
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(move_before_upsampling, write(SmallGraph()))
