"""The comparison with PyTorch sees what it should see: small shifts, NaNs, and nothing where nothing differs."""

from __future__ import annotations

import copy
import math

import numpy as np
import onnx
import pytest
import torch

from export.charge import charge_thresholds
from export.errors import ParityError
from export.parity import MAX_ABS_DIFFERENCE, allowed_difference, measured_parity, require_parity
from export.torch_graph import to_onnx
from pxdbg_runtime.card import Parity
from tests.checkpoints import FlatNet

THRESHOLDS = charge_thresholds()


@pytest.fixture(scope="module")
def model() -> FlatNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return FlatNet().eval()


@pytest.fixture(scope="module")
def graph(model: FlatNet) -> onnx.ModelProto:
    return to_onnx(model)


def with_bias(graph: onnx.ModelProto, shift: float, *, only_first: bool = False) -> onnx.ModelProto:
    """Copy a graph and shift what goes into its tanh, everywhere or in one column."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    (bias,) = (each for each in changed.graph.initializer if tuple(each.dims) == (768,))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[: 1 if only_first else None] += np.float32(shift)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    return changed


def test_what_is_below_the_smallest_hit_is_equal(model: FlatNet, graph: onnx.ModelProto) -> None:
    raised = THRESHOLDS.copy()
    raised[:6] -= np.float32(0.01)  # of 1 to 6 ADU
    shares = [measured_parity(model, graph, raised, min_charge).equal_charges for min_charge in (1, 7)]
    assert shares[0] < shares[1]
    assert shares[1] > 0.999


def test_a_faithful_graph_passes(model: FlatNet, graph: onnx.ModelProto) -> None:
    parity = measured_parity(model, graph, THRESHOLDS, 1)
    assert parity.images == 8
    assert 0 <= parity.max_abs_difference < 2e-6
    assert parity.equal_charges > 0.999
    require_parity(parity)


@pytest.mark.parametrize("shift", [1e-3, -1e-4])
def test_a_shifted_graph_is_measured_and_refused(model: FlatNet, graph: onnx.ModelProto, shift: float) -> None:
    parity = measured_parity(model, with_bias(graph, shift), THRESHOLDS, 1)
    assert parity.max_abs_difference == pytest.approx(abs(shift), rel=0.1)
    with pytest.raises(ParityError, match=r"differ from PyTorch's by up to .*more than the 1e-05 that is allowed"):
        require_parity(parity)


def test_the_share_of_equal_charges_is_that_of_the_columns_that_are_right(
    model: FlatNet, graph: onnx.ModelProto
) -> None:
    parity = measured_parity(model, with_bias(graph, 9.0, only_first=True), THRESHOLDS, 1)
    assert parity.equal_charges == pytest.approx(767 / 768, abs=1e-3)
    assert parity.equal_charges < 1 - 0.9 / 768


def test_a_single_nan_is_an_infinite_difference(model: FlatNet, graph: onnx.ModelProto) -> None:
    parity = measured_parity(model, with_bias(graph, math.nan, only_first=True), THRESHOLDS, 1)
    assert parity.max_abs_difference == math.inf
    with pytest.raises(ParityError, match=r"by up to inf, .* nothing was written") as caught:
        require_parity(parity)
    assert caught.value.max_abs_difference == math.inf


@pytest.mark.parametrize("difference", [1.0001e-5, 2.0, math.inf, math.nan])
def test_more_than_the_limit_is_refused(difference: float) -> None:
    with pytest.raises(ParityError, match="nothing was written"):
        require_parity(Parity(images=8, max_abs_difference=difference, equal_charges=1.0))


def test_the_limit_itself_passes() -> None:
    assert MAX_ABS_DIFFERENCE == 1e-5
    require_parity(Parity(images=8, max_abs_difference=1e-5, equal_charges=0.5))


def test_a_model_that_float32_computes_coarsely_may_differ_by_its_rounding(model: FlatNet) -> None:
    assert allowed_difference(model) == MAX_ABS_DIFFERENCE
    steep = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in steep.parameters():
            parameter.mul_(300.0)
    allowed = allowed_difference(steep)
    assert 2 * MAX_ABS_DIFFERENCE < allowed < 0.1
    require_parity(Parity(images=8, max_abs_difference=0.9 * allowed, equal_charges=1.0), allowed)
    with pytest.raises(ParityError, match="nothing was written"):
        require_parity(Parity(images=8, max_abs_difference=1.1 * allowed, equal_charges=1.0), allowed)


def test_latents_are_fresh_and_the_callers_generator_is_left_alone(model: FlatNet, graph: onnx.ModelProto) -> None:
    state = torch.get_rng_state()
    shifted = with_bias(graph, 0.01)
    first, second = (measured_parity(model, shifted, THRESHOLDS, 1).equal_charges for _ in range(2))
    assert first != second
    assert torch.equal(torch.get_rng_state(), state)
