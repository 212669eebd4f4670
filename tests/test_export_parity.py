"""Parity with PyTorch, and known answers: what they measure, allow and refuse."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from export.charge import find_charge_thresholds
from export.errors import ParityError
from export.families.resnet import FAMILY
from export.inference import draw_event
from export.parity import (
    REFERENCE_SEED,
    ReferenceImages,
    check_function,
    check_parity,
    compute_references,
    measure_parity,
)
from export.reference_outputs import build_known_answers
from export.torch_graph import export_to_onnx
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.inference.verification import check_known_answers
from tests.checkpoints import FlatNet
from tests.graphs import build_parity
from tests.tiny_models import TinyConvNet, few_images, tiny_of

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.card import Precision, Target

THRESHOLDS = find_charge_thresholds()


@pytest.fixture(scope="module")
def model() -> FlatNet:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return FlatNet().eval()


@pytest.fixture(scope="module")
def references(model: FlatNet) -> ReferenceImages:
    return compute_references(model, FAMILY)


@pytest.fixture(scope="module")
def graph(model: FlatNet) -> onnx.ModelProto:
    return export_to_onnx(model, FAMILY)


def with_bias(graph: onnx.ModelProto, shift: float, *, only_first: bool = False) -> onnx.ModelProto:
    """Copy a graph and shift the input of its tanh, everywhere or in one column."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    (bias,) = (each for each in changed.graph.initializer if tuple(each.dims) == (768,))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[: 1 if only_first else None] += np.float32(shift)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    return changed


def test_references_are_the_images_of_eight_sensors_of_one_event(model: FlatNet, references: ReferenceImages) -> None:
    assert references.sensors == tuple(range(0, 40, 5))
    latent = np.concatenate([feed["latent"] for feed in references.feeds])
    assert np.array_equal(latent, draw_event(FAMILY, REFERENCE_SEED, 0)["latent"][::5])
    assert np.array_equal(latent, references.batch["latent"])
    with torch.inference_mode():
        float32 = model(torch.from_numpy(latent)).numpy()
        exact = copy.deepcopy(model).double()(torch.from_numpy(latent).double()).numpy()
    assert references.float32.dtype == np.float32
    assert 0 < np.abs(references.float32 - exact).max() < 1e-6
    assert np.abs(references.float32 - float32).max() < 1e-6
    assert references.exact.dtype == np.float64
    assert np.abs(references.exact - exact).max() < 1e-15
    assert next(model.parameters()).dtype == torch.float32


def test_what_is_below_the_smallest_hit_is_equal(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    raised = THRESHOLDS.copy()
    raised[:6] -= np.float32(0.01)  # of 1 to 6 ADU
    shares = [measure_parity(references, graph, raised, min_charge).equal_charges for min_charge in (1, 7)]
    assert shares[0] < shares[1]
    assert shares[1] > 0.999


def test_a_faithful_graph_passes(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    parity = measure_parity(references, graph, THRESHOLDS, 1)
    assert parity.images == 8
    assert 0 <= parity.max_abs_difference < 2e-6
    assert 0 < parity.max_float64_difference < 2e-6
    assert 0 < parity.pytorch_float64_difference < 2e-6
    assert parity.equal_charges > 0.999
    check_parity(parity)


def test_the_same_graph_is_measured_the_same(model: FlatNet, graph: onnx.ModelProto) -> None:
    state = torch.get_rng_state()
    first, second = (measure_parity(compute_references(model, FAMILY), graph, THRESHOLDS, 1) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shift", [1e-3, -1e-5])
def test_a_shifted_graph_is_measured_and_refused(
    references: ReferenceImages, graph: onnx.ModelProto, shift: float
) -> None:
    parity = measure_parity(references, with_bias(graph, shift), THRESHOLDS, 1)
    assert parity.max_abs_difference == pytest.approx(abs(shift), rel=0.1)
    assert parity.max_float64_difference == pytest.approx(abs(shift), rel=0.1)
    with pytest.raises(ParityError, match=r"in float64 by up to .*more than the 5e-06 that is allowed") as caught:
        check_parity(parity)
    assert caught.value.max_abs_difference == parity.max_float64_difference


def test_a_graph_that_is_wrong_in_batches_alone_is_refused(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    mixing = onnx.ModelProto()
    mixing.CopyFrom(graph)
    index, tanh = next((index, node) for index, node in enumerate(mixing.graph.node) if node.op_type == "Tanh")
    (values,) = tanh.input
    # The mean over the batch, which of one image is the image.
    mixing.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "batch"))
    mixing.graph.node.insert(index, onnx.helper.make_node("ReduceMean", [values, "batch"], ["mean"]))
    mixing.graph.node.insert(index + 1, onnx.helper.make_node("Max", [values, "mean"], ["mixed"]))
    mixing.graph.node[index + 2].input[0] = "mixed"
    message = r"images of a batch of 8 differ from .* one at a time by up to .* than the 5e-06 that rounding explains"
    with pytest.raises(ParityError, match=message) as caught:
        measure_parity(references, mixing, THRESHOLDS, 1)
    assert caught.value.max_abs_difference > 0.1


def test_equal_charges_are_counted_among_hits_alone(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    parity = measure_parity(references, with_bias(graph, 9.0, only_first=True), THRESHOLDS, 200)
    hits = (references.float32 >= THRESHOLDS[199]).sum()
    first = references.float32[:, 0, 0] >= THRESHOLDS[199]
    expected = (hits - first.sum() * 250) / (hits + (~first).sum() * 250)
    assert 0.1 < expected < 0.999
    assert parity.equal_charges == pytest.approx(expected, abs=2e-3)


def test_values_up_to_the_cut_are_empty_in_both(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    raised = THRESHOLDS.copy()
    raised[:5] -= np.float32(0.01)  # of 1 to 5 ADU, which are below the cut
    assert measure_parity(references, graph, raised, 1).equal_charges < 0.999
    assert measure_parity(references, graph, raised, 1, -0.26).equal_charges > 0.999


def test_images_without_a_hit_are_equal(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    assert measure_parity(references, with_bias(graph, -20.0), np.full(255, 2, np.float32), 255).equal_charges == 1.0


def test_a_single_nan_is_an_infinite_difference(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    parity = measure_parity(references, with_bias(graph, math.nan, only_first=True), THRESHOLDS, 1)
    assert parity.max_abs_difference == parity.max_float64_difference == math.inf
    with pytest.raises(ParityError, match=r"by up to inf, .* nothing was written"):
        check_parity(parity)


@pytest.mark.parametrize(
    ("difference", "pytorch"),
    [(5.01e-6, 1e-8), (2.01e-5, 1e-5), (1.01e-3, 0.5), (2.0, 1.0), (math.inf, 1e-5), (math.nan, 1e-5)],
)
def test_more_than_twice_the_rounding_of_pytorch_is_refused(difference: float, pytorch: float) -> None:
    with pytest.raises(ParityError, match=r"nothing was written\. The releases of onnxruntime and torch"):
        check_parity(build_parity(difference, pytorch))


@pytest.mark.parametrize(("difference", "pytorch"), [(5e-6, 1e-8), (2e-5, 1e-5), (1e-3, 0.5), (0.0, 0.0)])
def test_up_to_twice_the_rounding_of_pytorch_passes(difference: float, pytorch: float) -> None:
    check_parity(build_parity(difference, pytorch))


@pytest.mark.parametrize(
    ("difference", "plain"), [(1.04e-4, 1.03e-4), (2e-4, 1e-4), (2.6e-4, 5e-4)], ids=["ResNet", "twice", "capped"]
)
def test_kernels_that_round_coarsely_are_judged_by_the_unchanged_graph(difference: float, plain: float) -> None:
    check_parity(build_parity(difference, 3.34e-5), plain)


@pytest.mark.parametrize(
    ("difference", "pytorch", "plain", "bound"),
    [
        (1.04e-4, 3.34e-5, 5.1e-5, "0.000102"),
        (2.7e-4, 3.34e-5, 1.0, "0.000267"),
        (2.7e-4, 3.34e-5, math.inf, "0.000267"),
        (1.01e-3, 0.5, 1.0, "0.001"),
        (math.inf, 3.34e-5, math.inf, "0.000267"),
    ],
)
def test_more_than_twice_the_unchanged_graph_or_eight_times_pytorch_is_refused(
    difference: float, pytorch: float, plain: float, bound: str
) -> None:
    with pytest.raises(ParityError, match=f"more than the {re.escape(bound)} that is allowed"):
        check_parity(build_parity(difference, pytorch), plain)


@pytest.mark.parametrize(
    ("difference", "pytorch"), [(1.01e-6, 1e-8), (1.51e-5, 1e-5), (1.01e-3, 0.5), (math.inf, 1e-5), (math.nan, 1e-5)]
)
def test_more_than_the_rounding_of_weights_is_refused(difference: float, pytorch: float) -> None:
    with pytest.raises(ParityError, match=r"does not compute the model: .* nothing was written\.") as caught:
        check_function(difference, build_parity(0.0, pytorch))
    assert caught.value.max_abs_difference == pytest.approx(difference, nan_ok=True)


@pytest.mark.parametrize(("difference", "pytorch"), [(1e-6, 1e-8), (1.5e-5, 1e-5), (1e-3, 0.5), (0.0, 0.0)])
def test_up_to_the_rounding_of_weights_passes(difference: float, pytorch: float) -> None:
    check_function(difference, build_parity(1.0, pytorch))


def test_a_model_that_float32_computes_coarsely_is_judged_by_its_rounding(
    model: FlatNet, graph: onnx.ModelProto
) -> None:
    steep = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in steep.parameters():
            parameter.mul_(300.0)
    scaled = onnx.ModelProto()
    scaled.CopyFrom(graph)
    for tensor in scaled.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(300.0)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    parity = measure_parity(compute_references(steep, FAMILY), scaled, THRESHOLDS, 1)
    assert 2e-5 < parity.pytorch_float64_difference < 1e-2
    assert parity.max_float64_difference > 1e-5
    check_parity(parity)


def test_pytorch_is_also_judged_with_batch_norms_folded_into_a_convolution_before() -> None:
    tiny = tiny_of(TinyConvNet, 1)
    model, references = tiny.model, tiny.references
    assert 0 < np.abs(references.folded - references.float32).max() < 1e-4
    assert any(isinstance(each, torch.nn.BatchNorm2d) for each in model.modules())
    least = dataclasses.replace(references, float32=references.exact.astype(np.float32))
    parity = measure_parity(least, tiny.plain, THRESHOLDS, 1)
    assert parity.pytorch_float64_difference == pytest.approx(
        np.abs(references.folded - references.exact).max(), rel=0.01
    )


# Known answers


def test_each_charge_of_an_image_is_there_once_or_more(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    answers = build_known_answers(references, graph, THRESHOLDS, "float32", "values")
    assert (answers.compared, answers.seed, answers.event) == ("values", REFERENCE_SEED, 0)
    assert len(answers.images) == len({image.sensor for image in answers.images}) == 3
    found: set[int] = set()
    for image in answers.images:
        pixels = image.decode_pixels()
        assert len(pixels) == 4096
        exact = references.exact[references.sensors.index(image.sensor)].astype(np.float32)
        assert np.array_equal(answers.decode_outputs(image), exact.ravel()[pixels])
        charges = np.searchsorted(THRESHOLDS, answers.decode_outputs(image).astype(np.float32), side="right")
        assert set(np.unique(charges)) == set(np.unique(np.searchsorted(THRESHOLDS, exact, side="right")))
        assert 0.2 < (charges == 0).mean() < 0.9
        found |= set(charges.tolist())
    assert len(found) > 100
    # The richest image comes first, since a session computes that one alone.
    richness = [len(np.unique(np.searchsorted(THRESHOLDS, each, side="right"))) for each in references.exact]
    assert references.sensors.index(answers.images[0].sensor) == int(np.argmax(richness))


def test_a_float32_graph_may_be_eight_times_as_far_from_float64_as_pytorch(
    references: ReferenceImages, graph: onnx.ModelProto
) -> None:
    fine = build_known_answers(references, graph, THRESHOLDS, "float32", "values")
    assert (fine.tolerance, fine.mean_tolerance) == (1e-5, 1e-6)
    noise = np.random.default_rng(0).uniform(-1e-4, 1e-4, references.exact.shape)
    coarse = ReferenceImages(
        sensors=references.sensors,
        feeds=references.feeds,
        batch=references.batch,
        exact=references.exact,
        float32=(references.exact + noise).astype(np.float32),
        folded=(references.exact - 2 * noise).astype(np.float32),
    )
    answers = build_known_answers(coarse, graph, THRESHOLDS, "float32", "values")
    assert answers.tolerance == pytest.approx(16e-4, rel=0.05)
    assert answers.mean_tolerance == pytest.approx(8e-4, rel=0.05)


@pytest.mark.parametrize(
    ("precision", "target", "compared"),
    [
        ("float32", "cpu", "values"),
        ("float16", "cpu", "values"),
        ("float16", "cuda", "charges"),
        ("int8", "cpu", "charges"),
    ],
)
def test_an_exported_graph_passes_its_own_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, target: Target, compared: str
) -> None:
    few_images(monkeypatch)
    tiny = tiny_of(TinyConvNet, 1)
    written = tiny.export(tmp_path, precision, target, accept_beyond_bounds=precision != "float32")
    answers = written.card.known_answers
    assert answers is not None
    assert answers.compared == compared
    if precision == "int8":
        assert (answers.tolerance, answers.mean_tolerance) == (0.0, 0.0)
    verdict = check_known_answers(ImageSession(written, provider="cpu"), answers)
    assert verdict.passed
    assert verdict.images == 3
