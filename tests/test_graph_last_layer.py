"""Convolutions with few output channels compute blocks of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.graph.last_layer import make_block_outputs
from tests.small_graphs import (
    BATCHES,
    CHANNELS,
    COPYING_MODES,
    FEW,
    KERNELS,
    SEEDS,
    SmallGraph,
    apply_pass,
    assert_same_function,
    cases,
    check_untouched,
    draw_pads,
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

    from tests.small_graphs import Pads

KERNELS_AND_PADS: Final = KERNELS.filter(lambda kernel: kernel != (1, 1)).flatmap(
    lambda kernel: st.tuples(st.just(kernel), draw_pads(kernel))
)
BLOCK_COUNTS: Final = st.tuples(st.integers(1, 3), st.integers(1, 3))


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=st.integers(1, 4), counts=BLOCK_COUNTS, bias=st.booleans(),
    kernel_and_pads=KERNELS_AND_PADS, follows=st.booleans(), whole=st.booleans(),
)  # fmt: skip
def test_of_an_image(
    seed: int,
    batch: int,
    n_in: int,
    n_out: int,
    counts: tuple[int, int],
    bias: bool,
    kernel_and_pads: tuple[tuple[int, int], Pads],
    follows: bool,
    whole: bool,
) -> None:
    graph = SmallGraph(seed, whole=whole)
    (kernel, pads), side = kernel_and_pads, 4 if n_out == 1 else 2
    result = graph.conv(
        graph.input(n_in, side * counts[0], side * counts[1]), n_in, n_out, kernel, bias=bias, pads=pads
    )
    if follows:
        graph.node("Abs", result)
    rewriting = apply_pass(make_block_outputs, graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after) == ["Conv", "DepthToSpace", *["Abs"] * follows]
    assert_same_function(rewriting, graph, batch)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=st.integers(1, 4), counts=BLOCK_COUNTS, bias=st.booleans(),
    kernel_and_pads=KERNELS_AND_PADS, modes=st.sampled_from(COPYING_MODES), is_shared=st.booleans(),
)  # fmt: skip
def test_of_a_doubled_image(
    seed: int,
    batch: int,
    n_in: int,
    n_out: int,
    counts: tuple[int, int],
    bias: bool,
    kernel_and_pads: tuple[tuple[int, int], Pads],
    modes: dict[str, str],
    is_shared: bool,
) -> None:
    graph = SmallGraph(seed)
    (kernel, pads), side = kernel_and_pads, 2 if n_out == 1 else 1
    doubled = graph.upsample(graph.input(n_in, side * counts[0], side * counts[1]), **modes)
    result = graph.conv(doubled, n_in, n_out, kernel, bias=bias, pads=pads)
    rewriting = apply_pass(make_block_outputs, graph.model(result, *[doubled] * is_shared))
    assert rewriting.n_changes == 1
    assert sorted(list_operators(rewriting.after)) == ["Conv", "DepthToSpace", *["Resize"] * is_shared]
    assert_same_function(rewriting, graph, batch)


@pytest.mark.parametrize(("n_out", "side", "n_channels"), [(1, 4, 16), (2, 2, 8), (3, 2, 12), (4, 2, 16)])
def test_at_most_sixteen_channels_are_made(n_out: int, side: int, n_channels: int) -> None:
    graph = SmallGraph()
    graph.conv(graph.input(2, 4, 8), 2, n_out)
    (convolution, shuffle) = apply_pass(make_block_outputs, graph.model()).after.graph.node
    assert {each.name: list(each.ints) for each in convolution.attribute}["strides"] == [side, side]
    assert {each.name: each.i for each in shuffle.attribute}["blocksize"] == side
    assert n_out * side**2 == n_channels <= 16


def _filters_that_are_computed(graph: SmallGraph) -> onnx.ModelProto:
    filters = graph.node("Abs", graph.constant(graph.values(1, 2, 1, 1)))
    return graph.model(graph.node("Conv", graph.input(2, 4, 8), filters))


@pytest.mark.parametrize(
    "write",
    cases(
        _filters_that_are_computed,
        **{
            "five channels": lambda graph: graph.model(graph.conv(graph.input(2, 4, 8), 2, 5)),
            "a height that is no multiple": lambda graph: graph.model(graph.conv(graph.input(2, 6, 8), 2, 1)),
            "a width that is no multiple": lambda graph: graph.model(graph.conv(graph.input(2, 4, 7), 2, 2)),
            "a single pixel": lambda graph: graph.model(graph.conv(graph.input(2, 4, 8), 2, 1, (1, 1))),
            "an even kernel": lambda graph: graph.model(
                graph.conv(graph.input(2, 4, 8), 2, 1, (2, 3), pads=(1, 1, 0, 1))
            ),
            "a stride": lambda graph: graph.model(graph.conv(graph.input(2, 8, 8), 2, 1, strides=[2, 2])),
            "groups": lambda graph: graph.model(graph.conv(graph.input(2, 4, 8), 1, 2, group=2)),
            "dilation": lambda graph: graph.model(
                graph.conv(graph.input(2, 4, 8), 2, 1, dilations=[2, 2], pads=(2, 2, 2, 2))
            ),
            "another size": lambda graph: graph.model(graph.conv(graph.input(2, 5, 9), 2, 1, pads=(1, 1, 0, 0))),
            "no convolution": lambda graph: graph.model(graph.node("Tanh", graph.input(1, 4, 8))),
        },
    ),
)
def test_other_graphs_are_left_untouched(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(make_block_outputs, write(SmallGraph()))


@pytest.mark.parametrize("size", [("h", 8), (4, "w"), ("h", "w")])
def test_so_are_images_of_unknown_size(size: tuple[int | str, int | str]) -> None:
    graph = SmallGraph()
    graph.conv(graph.input(2, *size), 2, 1)
    made = ir.from_proto(graph.model())
    before = ir.to_proto(made).SerializeToString()
    assert make_block_outputs(made) == 0
    assert ir.to_proto(made).SerializeToString() == before
