"""The line that corrects the last layer, and matched thresholds; neither is fitted to few hits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from export.charge import find_charge_thresholds
from export.int8 import OutputRange
from export.int8.correction import Line, _count_at_or_above, fit_line, fold_line, match_thresholds
from tests.int8_sketches import Sketch, images_of, latents

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

HEAD: Final = OutputRange(low=-1.0, high=2.0)
THRESHOLD: Final = float(np.tanh(-0.9))
IDENTITY: Final = Line(slope=1.0, offset=0.0)


def before_tanh(seed: int = 0, n_values: int = 20_000) -> NDArray[np.float64]:
    """Draw values, some of them hits."""
    return np.random.default_rng(seed).normal(-1.5, 1.2, n_values)


def tanh_of(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.tanh(values).astype(np.float32).reshape(2, -1)


def clip_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(values, HEAD.low, HEAD.high)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), slope=st.floats(0.8, 1.2), offset=st.floats(-0.1, 0.1))
def test_a_known_line_is_found(seed: int, slope: float, offset: float) -> None:
    values = before_tanh(seed)
    line = fit_line(tanh_of(values), tanh_of(slope * values + offset), HEAD, THRESHOLD)
    assert line.slope == pytest.approx(slope, abs=1e-4)
    assert line.offset == pytest.approx(offset, abs=1e-4)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), slope=st.floats(0.95, 1.05), offset=st.floats(-0.02, 0.02))
def test_what_lies_at_the_ends_of_the_range_is_left_out(seed: int, slope: float, offset: float) -> None:
    values = before_tanh(seed)
    assert (values > HEAD.high).any()
    line = fit_line(tanh_of(clip_values(values)), tanh_of(slope * values + offset), HEAD, THRESHOLD)
    assert line.slope == pytest.approx(slope, abs=1e-3)
    assert line.offset == pytest.approx(offset, abs=1e-3)


def test_ranks_count_and_not_places() -> None:
    values = before_tanh()
    shuffled = np.random.default_rng(1).permutation(values)
    lines = [fit_line(tanh_of(each), tanh_of(1.1 * values), HEAD, THRESHOLD) for each in (values, shuffled)]
    assert lines[0] == lines[1]


def test_the_line_is_that_of_the_hits_and_of_half_as_many_below() -> None:
    x = np.linspace(1.0, -3.0, 4000)
    # A thousand hits on one line, the five hundred ranks below them on another, and all that follow far away.
    y = np.where(np.arange(4000) < 1000, x, np.where(np.arange(4000) < 1500, x - 0.2, 2 * x - 3))
    output_range = OutputRange(low=-5.0, high=2.0)
    line = fit_line(tanh_of(x), tanh_of(y), output_range, float(np.tanh(y[999] - 1e-4)))
    assert [line.slope, line.offset] == pytest.approx(np.polyfit(x[:1500], y[:1500], 1), abs=1e-3)


def test_equal_values_give_the_identity() -> None:
    values = tanh_of(before_tanh())
    line = fit_line(values, values, HEAD, THRESHOLD)
    assert [line.slope, line.offset] == pytest.approx([1.0, 0.0], abs=1e-9)


@pytest.mark.parametrize("n_hits", [0, 1, 66])
def test_hardly_any_hits_give_the_identity(n_hits: int) -> None:
    values = np.full(4000, -2.0)
    values[:n_hits] = np.linspace(-0.5, 1.0, n_hits)
    assert fit_line(tanh_of(values), tanh_of(1.1 * values), HEAD, THRESHOLD) == IDENTITY


def test_enough_hits_give_a_line() -> None:
    values = np.linspace(-2.5, 1.0, 4000)
    assert fit_line(tanh_of(values), tanh_of(1.1 * values), HEAD, THRESHOLD).slope == pytest.approx(1.1, abs=1e-4)


def test_hits_that_all_lie_at_the_end_of_the_range_give_the_identity() -> None:
    values = np.where(np.arange(4000) < 1000, 3.0, -3.0)
    assert fit_line(tanh_of(clip_values(values)), tanh_of(values), HEAD, THRESHOLD) == IDENTITY


def test_hits_of_one_value_give_the_identity() -> None:
    values = np.full(4000, 0.5)
    assert fit_line(tanh_of(values), tanh_of(values + 0.1), HEAD, THRESHOLD) == IDENTITY


def test_values_of_one_are_no_infinity() -> None:
    values = before_tanh()
    exact = tanh_of(values)
    exact[0, :50] = 1.0
    line = fit_line(tanh_of(values), exact, HEAD, THRESHOLD)
    assert np.isfinite([line.slope, line.offset]).all()


# Thresholds


THRESHOLDS: Final = find_charge_thresholds()


def charges_by(thresholds: NDArray[np.float32], values: NDArray[np.float32], min_charge: int) -> NDArray[np.int64]:
    charges = np.searchsorted(thresholds, values.ravel(), side="right")
    return np.where(charges < min_charge, 0, charges)


def check_ascending(thresholds: NDArray[np.float32]) -> None:
    assert thresholds.dtype == np.float32
    assert thresholds.shape == THRESHOLDS.shape
    assert np.all(np.diff(thresholds) > 0)
    assert thresholds[0] > -1
    assert thresholds[-1] <= 1


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    power=st.floats(0.8, 1.3),
    offset=st.floats(-0.2, 0.2),
    min_charge=st.sampled_from((1, 7, 40)),
)
def test_with_its_thresholds_any_rising_map_of_the_values_gives_the_same_charges(
    seed: int, power: float, offset: float, min_charge: int
) -> None:
    values = np.random.default_rng(seed).normal(-0.8, 0.7, 40_000)
    exact, bent = tanh_of(values), tanh_of(np.sign(values) * np.abs(values) ** power + offset)
    made = match_thresholds(bent, exact, THRESHOLDS, min_charge)
    check_ascending(made)
    expected = charges_by(THRESHOLDS, exact, min_charge)
    # Thresholds that fewer values reach are not matched.
    last = np.count_nonzero([np.count_nonzero(exact >= threshold) >= 100 for threshold in THRESHOLDS])
    assert np.count_nonzero(expected > 0) > 1000
    found = charges_by(made, bent, min_charge)
    assert np.array_equal(np.minimum(found, last), np.minimum(expected, last))


def test_values_at_a_threshold_reach_it_and_those_that_are_no_numbers_reach_none() -> None:
    below = np.nextafter(THRESHOLDS, np.float32(-2))
    values = np.concatenate([tanh_of(before_tanh(n_values=300_000)).ravel(), THRESHOLDS, below, [np.float32(np.nan)]])
    expected = [np.count_nonzero(values >= threshold) for threshold in THRESHOLDS]
    assert _count_at_or_above(values[np.newaxis], THRESHOLDS).tolist() == expected
    raised = np.maximum(THRESHOLDS, THRESHOLDS[6])
    assert _count_at_or_above(values, raised).tolist() == [*[expected[6]] * 6, *expected[6:]]


def test_equal_images_have_the_same_charges() -> None:
    values = tanh_of(before_tanh())
    made = match_thresholds(values, values, THRESHOLDS, 7)
    assert np.array_equal(charges_by(made, values, 7), charges_by(THRESHOLDS, values, 7))


def test_few_levels_give_as_many_hits_as_there_should_be_to_half_a_level() -> None:
    values = before_tanh(n_values=200_000)
    levels = np.round(values / 0.05) * 0.05
    made = match_thresholds(tanh_of(levels), tanh_of(values), THRESHOLDS, 7)
    check_ascending(made)
    expected, found = charges_by(THRESHOLDS, tanh_of(values), 7), charges_by(made, tanh_of(levels), 7)
    in_a_level = np.unique(levels, return_counts=True)[1].max()
    for charge in (7, 20, 100):
        assert abs(np.count_nonzero(found >= charge) - np.count_nonzero(expected >= charge)) <= in_a_level / 2


def test_charges_that_hardly_any_value_reaches_keep_their_distance_to_the_last_that_is_known() -> None:
    values = np.linspace(-2.0, 0.0, 20_000)
    made = match_thresholds(tanh_of(values + 0.1), tanh_of(values), THRESHOLDS, 7)
    moved = np.arctanh(made[:-1].astype(np.float64)) - np.arctanh(THRESHOLDS[:-1].astype(np.float64))
    assert np.arctanh(THRESHOLDS[20]) > 0
    assert moved == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("n_hits", [0, 1, 99])
def test_hardly_any_hits_leave_the_thresholds_where_they_are(n_hits: int) -> None:
    values = np.full(4000, -2.0)
    values[:n_hits] = 1.0
    assert match_thresholds(tanh_of(values), tanh_of(values), THRESHOLDS, 7) is THRESHOLDS


def test_integers_of_one_value_leave_an_ascending_table() -> None:
    made = match_thresholds(np.full((1, 4000), 0.5, np.float32), tanh_of(before_tanh()), THRESHOLDS, 1)
    check_ascending(made)


# The corrected graph


def two_convolutions() -> onnx.ModelProto:
    sketch = Sketch()
    image = sketch.relu(sketch.convolve(sketch.linear(3, 2, 8), 3, 4, 3))
    return sketch.model(sketch.node("Tanh", [sketch.convolve(image, 4, 1, 3)]))


def test_only_the_last_convolution_changes_and_by_that_line() -> None:
    model, line = two_convolutions(), Line(slope=1.25, offset=-0.5)
    made = fold_line(model, line)
    assert [*made.graph.node] == [*model.graph.node]
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Conv")
    before, after = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in each.graph.initializer} for each in (model, made)
    )
    assert before.keys() == after.keys()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == set(last.input[1:])
    weight, bias = last.input[1:]
    # A quarter more is exact in float32.
    np.testing.assert_array_max_ulp(after[weight], before[weight] * np.float32(1.25), maxulp=1)
    np.testing.assert_allclose(after[bias], before[bias] * 1.25 - 0.5, rtol=1e-6)
    assert {each.dtype.name for each in (after[weight], after[bias])} == {"float32"}


def test_a_last_convolution_without_a_bias_gets_one() -> None:
    model, line = two_convolutions(), Line(slope=1.5, offset=-0.25)
    last = next(node for node in reversed(model.graph.node) if node.op_type == "Conv")
    del last.input[2:]
    inputs = latents()
    plain, found = (
        np.arctanh(np.clip(images_of(each, inputs).astype(np.float64), -0.99, 0.99))
        for each in (model, fold_line(model, line))
    )
    is_known = (np.abs(plain) < 1.5) & (np.abs(found) < 2)
    assert is_known.any()
    np.testing.assert_allclose(found[is_known], (1.5 * plain - 0.25)[is_known], atol=1e-4)


def test_the_graph_before_is_left_as_it_is() -> None:
    model = two_convolutions()
    before = model.SerializeToString()
    fold_line(model, Line(slope=2.0, offset=1.0))
    assert model.SerializeToString() == before


@settings(max_examples=10)
@given(slope=st.floats(0.5, 2.0), offset=st.floats(-1, 1))
def test_values_before_the_tanh_are_those_of_the_line(slope: float, offset: float) -> None:
    model, inputs = two_convolutions(), latents()
    plain, found = (
        np.arctanh(np.clip(images_of(each, inputs).astype(np.float64), -0.99, 0.99))
        for each in (model, fold_line(model, Line(slope=slope, offset=offset)))
    )
    is_known = (np.abs(plain) < 2) & (np.abs(found) < 2)
    assert is_known.any()
    np.testing.assert_allclose(found[is_known], (slope * plain + offset)[is_known], atol=1e-4)


def test_the_identity_changes_nothing() -> None:
    model = two_convolutions()
    assert fold_line(model, IDENTITY) == model
