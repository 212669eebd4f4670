"""Charges computed by a graph, against the table of thresholds."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto

from export.charge import cut_thresholds, find_charge_thresholds
from export.graph import append_charges
from tests.small_graphs import SmallGraph, evaluate, run_by_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Evaluator = Callable[[onnx.ModelProto, dict[str, NDArray[np.float32]]], list[NDArray[np.uint8]]]

TABLE: Final = find_charge_thresholds()
EVALUATORS: Final[tuple[Evaluator, ...]] = (evaluate, run_by_onnxruntime)
VALUES: Final = st.one_of(
    st.floats(-1, 1, width=32), st.floats(allow_nan=False, width=32), st.sampled_from(TABLE.tolist())
)
IMAGES: Final = hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.just(3), st.just(4)), elements=VALUES)


@functools.cache
def giving_charges(*shape: int, cut: float | None = None) -> onnx.ModelProto:
    """Make a graph that computes the charges of its input: do not change it."""
    graph = SmallGraph()
    graph.node("Identity", graph.input(*shape))
    return append_charges(graph.model(), cut_thresholds(TABLE, cut))


def expected_charges(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Count the thresholds that are not greater."""
    return np.searchsorted(TABLE, values.ravel(), side="right").reshape(values.shape).astype(np.uint8)


@pytest.mark.parametrize("evaluate", EVALUATORS)
def test_every_threshold_and_two_neighbours_on_either_side(evaluate: Evaluator) -> None:
    down, up = np.float32(-2), np.float32(2)
    below, above = np.nextafter(TABLE, down), np.nextafter(TABLE, up)
    values = np.stack([np.nextafter(below, down), below, TABLE, above, np.nextafter(above, up)])
    (charges,) = evaluate(giving_charges(255), {"z": values})
    assert charges.dtype == np.uint8
    assert np.array_equal(charges, expected_charges(values))
    assert charges.tolist() == [[*range(255)], [*range(255)], [*range(1, 256)], [*range(1, 256)], [*range(1, 256)]]


@pytest.mark.parametrize("evaluate", EVALUATORS)
@given(images=IMAGES)
def test_any_values(evaluate: Evaluator, images: NDArray[np.float32]) -> None:
    (charges,) = evaluate(giving_charges(3, 4), {"z": images})
    assert np.array_equal(charges, expected_charges(images))


@pytest.mark.parametrize("evaluate", EVALUATORS)
@given(images=IMAGES)
@pytest.mark.slow
def test_any_values_with_a_cut(evaluate: Evaluator, images: NDArray[np.float32]) -> None:
    (charges,) = evaluate(giving_charges(3, 4, cut=-0.26), {"z": images})
    assert np.array_equal(charges, np.where(images > np.float32(-0.26), expected_charges(images), 0))


@pytest.mark.parametrize("evaluate", EVALUATORS)
def test_the_cut_itself_is_empty_and_nan_is_not(evaluate: Evaluator) -> None:
    cut = np.float32(-0.26)
    values = np.array([[np.nextafter(cut, np.float32(-1)), cut, np.nextafter(cut, np.float32(1)), np.nan]])
    (charges,) = evaluate(giving_charges(4, cut=-0.26), {"z": values.astype(np.float32)})
    assert charges.tolist() == [[0, 0, 6, 255]]


@pytest.mark.parametrize("evaluate", EVALUATORS)
def test_values_everywhere_between_the_ends(evaluate: Evaluator) -> None:
    values = np.linspace(-1, 1, 200_001, dtype=np.float32).reshape(1, -1)
    (charges,) = evaluate(giving_charges(200_001), {"z": values})
    assert np.array_equal(charges, expected_charges(values))


@pytest.mark.parametrize("evaluate", EVALUATORS)
@pytest.mark.parametrize(
    ("value", "charge"),
    [(-1.0, 0), (1.0, 255), (-np.inf, 0), (np.inf, 255), (np.nan, 255), (-np.nan, 255), (-3.0, 0), (3.0, 255)],
)
def test_the_ends_and_what_lies_beyond(evaluate: Evaluator, value: float, charge: int) -> None:
    values = np.array([[value, 0.0]], np.float32)
    (charges,) = evaluate(giving_charges(2), {"z": values})
    assert charges.tolist() == [[charge, 15]]


def test_thresholds_closer_than_the_bins_are_refused() -> None:
    graph = SmallGraph()
    graph.node("Identity", graph.input(2))
    with pytest.raises(ValueError, match="closer than the bins"):
        append_charges(graph.model(), np.array([0.5, 0.50001], np.float32))


def test_the_output_keeps_its_name_and_shape() -> None:
    made = giving_charges(3, 4)
    (output,) = made.graph.output
    assert output.name == "val_0"
    assert output.type.tensor_type.elem_type == TensorProto.UINT8
    assert [axis.dim_param or axis.dim_value for axis in output.type.tensor_type.shape.dim] == ["n", 3, 4]
    onnx.checker.check_model(made, full_check=True)


def test_the_graph_that_is_given_does_not_change() -> None:
    graph = SmallGraph(whole=False)
    graph.node("Tanh", graph.conv(graph.input(2, 3, 4), 2, 1))
    model = graph.model()
    before = model.SerializeToString()
    made = append_charges(model, TABLE)
    assert model.SerializeToString() == before
    feeds = graph.feeds(2)
    assert np.array_equal(run_by_onnxruntime(made, feeds)[0], expected_charges(run_by_onnxruntime(model, feeds)[0]))
