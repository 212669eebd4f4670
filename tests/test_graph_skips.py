"""Skips of residual blocks: batch norms of sums, sums in the blocked layout, and tables of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from export.graph import count_multiply_accumulates
from export.graph.blocked_sums import make_blocked_sums
from export.graph.norms_of_sums import distribute_batch_norms
from export.graph.phase_convolutions import make_phase_convolutions
from export.graph.row_tables import fold_row_tables
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
    list_operators,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx


@FEW
@given(seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, swapped=st.booleans())
def test_a_batch_norm_of_a_sum_acts_before_the_upsampling(
    seed: int, batch: int, n_in: int, n_out: int, size: tuple[int, int], swapped: bool
) -> None:
    graph = SmallGraph(seed, whole=False)
    main = graph.conv(graph.upsample(graph.input(n_in, *size)), n_in, n_out)
    skip = graph.upsample(graph.node("Relu", graph.input(n_out, *size, name="skip")))
    graph.batch_norm(graph.node("Add", *((skip, main) if swapped else (main, skip))), n_out)
    rewriting = apply_pass(distribute_batch_norms, graph.model())
    assert rewriting.n_changes == 1
    assert "BatchNormalization" not in list_operators(rewriting.after)
    assert_same_function(rewriting, graph, batch)


def _a_skip_that_is_not_upsampled(graph: SmallGraph) -> onnx.ModelProto:
    total = graph.node("Add", graph.conv(graph.input(2, 4, 6), 2, 2), graph.node("Relu", "z"))
    return graph.model(graph.batch_norm(total, 2))


def _a_sum_that_others_use(graph: SmallGraph) -> onnx.ModelProto:
    image = graph.upsample(graph.input(2, 2, 3))
    total = graph.node("Add", graph.conv(image, 2, 2), graph.upsample(graph.node("Relu", "z")))
    return graph.model(graph.batch_norm(total, 2), total)


@pytest.mark.parametrize("write", cases(_a_skip_that_is_not_upsampled, _a_sum_that_others_use))
def test_other_batch_norms_stay(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(distribute_batch_norms, write(SmallGraph()))


@FEW
@given(seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, doubled=st.booleans(), swapped=st.booleans())
def test_a_slice_is_copied_into_blocks(
    seed: int, batch: int, n_in: int, n_out: int, doubled: bool, swapped: bool
) -> None:
    graph = SmallGraph(seed)
    image = graph.input(n_in + n_out, 2, 3)
    main, skip = graph.conv(image, n_in + n_out, n_out), graph.slice(image, 0, n_out, 1)
    if doubled:
        main, skip = graph.conv(graph.upsample(image), n_in + n_out, n_out), graph.upsample(skip)
    graph.node("Add", *((skip, main) if swapped else (main, skip)))
    rewriting = apply_pass(make_blocked_sums, graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after).count("Conv") == 2
    assert_same_function(rewriting, graph, batch)
    check_untouched(make_blocked_sums, rewriting.after)


def test_other_sums_stay() -> None:
    graph = SmallGraph()
    image = graph.input(2, 4, 6)
    graph.node("Add", graph.conv(image, 2, 2), graph.node("Relu", image))
    check_untouched(make_blocked_sums, graph.model())


def write_rows(graph: SmallGraph, n_rows: int, n_columns: int, *, is_nd: bool) -> str:
    """Write rows of a constant table, with indices from the input ``index``."""
    index = graph.node("Cast", graph.input(name="index"), to=TensorProto.INT64)
    table = graph.constant(graph.values(n_rows, n_columns))
    if is_nd:
        return graph.node("GatherND", table, graph.node("Unsqueeze", index, graph.constant(np.array([-1]))))
    return graph.node("Gather", table, index)


@FEW
@given(
    seed=SEEDS, batch=BATCHES, n_rows=st.integers(4, 6), n_latents=st.integers(1, 4), n_outputs=CHANNELS,
    is_nd=st.booleans(), bias=st.booleans(), is_transposed=st.booleans(), position=st.integers(0, 2),
)  # fmt: skip
def test_a_table_of_rows_is_multiplied_once(
    seed: int,
    batch: int,
    n_rows: int,
    n_latents: int,
    n_outputs: int,
    is_nd: bool,
    bias: bool,
    is_transposed: bool,
    position: int,
) -> None:
    graph = SmallGraph(seed)
    parts = [graph.input(n_latents), graph.input(2, name="w")]
    parts.insert(position, write_rows(graph, n_rows, n_rows + 1, is_nd=is_nd))
    joined = graph.node("Concat", *parts, axis=1)
    graph.linear(joined, n_latents + n_rows + 3, n_outputs, is_transposed=is_transposed, bias=bias)
    rewriting = apply_pass(fold_row_tables, graph.model())
    assert rewriting.n_changes == 1
    found, expected = (count_multiply_accumulates(each) for each in (rewriting.after, rewriting.before))
    assert expected - found == (n_rows + 1) * n_outputs
    assert_same_function(rewriting, graph, batch)


def _a_table_of_more_rows_than_columns(graph: SmallGraph) -> onnx.ModelProto:
    joined = graph.node("Concat", write_rows(graph, 4, 3, is_nd=False), graph.input(2), axis=1)
    return graph.model(graph.linear(joined, 5, 3))


def _a_table_that_is_computed(graph: SmallGraph) -> onnx.ModelProto:
    index = graph.node("Cast", graph.input(name="index"), to=TensorProto.INT64)
    rows = graph.node("Gather", graph.node("Abs", graph.constant(graph.values(4, 6))), index)
    return graph.model(graph.linear(graph.node("Concat", rows, graph.input(2), axis=1), 8, 3))


@pytest.mark.parametrize("write", cases(_a_table_of_more_rows_than_columns, _a_table_that_is_computed))
def test_other_tables_stay(write: Callable[[SmallGraph], onnx.ModelProto]) -> None:
    check_untouched(fold_row_tables, write(SmallGraph()))


@FEW
@given(seed=SEEDS, batch=BATCHES, n_in=CHANNELS, n_out=CHANNELS, size=SIZES, rectified=st.booleans())
def test_phases_have_the_norm_of_their_convolution(
    seed: int, batch: int, n_in: int, n_out: int, size: tuple[int, int], rectified: bool
) -> None:
    graph = SmallGraph(seed)
    graph.input(3, name="c")
    image = graph.conv(graph.upsample(graph.input(n_in, *size)), n_in, n_out)
    result = graph.conditional_norm(image, "c", 3, n_out)
    if rectified:
        graph.node("Relu", result)
    rewriting = apply_pass(lambda model: make_phase_convolutions(model, "rows"), graph.model())
    assert rewriting.n_changes == 1
    assert list_operators(rewriting.after).count("Conv") >= 2
    assert_same_function(rewriting, graph, batch, exact=False)
