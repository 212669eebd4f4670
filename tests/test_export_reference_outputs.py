"""Known answers of an export: they hold hits of all charges, and their tolerances follow from float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from export.charge import find_charge_thresholds
from export.families.resnet import FAMILY
from export.parity import REFERENCE_SEED, ReferenceImages, compute_references
from export.reference_outputs import build_known_answers
from export.torch_graph import export_to_onnx
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.inference.verification import check_known_answers
from tests.checkpoints import FlatNet
from tests.tiny_models import TinyConvNet, few_images, tiny_of

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

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


def test_each_charge_of_an_image_is_there_once_or_more(references: ReferenceImages, graph: onnx.ModelProto) -> None:
    answers = build_known_answers(references, graph, THRESHOLDS, "float32", "values")
    assert (answers.compared, answers.seed, answers.event) == ("values", REFERENCE_SEED, 0)
    assert len(answers.images) == len({image.sensor for image in answers.images}) == 3
    found: set[int] = set()
    for image in answers.images:
        pixels = image.pixel_numbers()
        assert len(pixels) == 4096
        exact = references.exact[references.sensors.index(image.sensor)].astype(np.float32)
        assert np.array_equal(answers.expected(image), exact.ravel()[pixels])
        charges = np.searchsorted(THRESHOLDS, answers.expected(image).astype(np.float32), side="right")
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
    tiny = tiny_of(TinyConvNet, 0)
    written = tiny.export(tmp_path, precision, target, accept_beyond_bounds=True)
    answers = written.card.known_answers
    assert answers is not None
    assert answers.compared == compared
    if precision == "int8":
        assert (answers.tolerance, answers.mean_tolerance) == (0.0, 0.0)
    verdict = check_known_answers(ImageSession(written, provider="cpu"), answers)
    assert verdict.passed
    assert verdict.images == 3
