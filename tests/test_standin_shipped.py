"""The shipped graphs are stand-ins, as near to the public marginals as docs/stand-ins.md says."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx.utils
import pytest
import torch

import artifacts.standins
from artifacts.standins.marginals import SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE, compute_mean_occupancies
from artifacts.standins.rebuild import rebuild_checkpoint
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet
from export.fidelity import compute_charge_w1
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.inference.providers import CPU, import_onnxruntime
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest
from pxdbg_runtime.validation.features import describe_clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Precision

FAMILIES = tuple(sorted({graph.name for graph in read_manifest()}))
CONDITIONAL_FAMILIES = tuple(
    family for family in FAMILIES if "sensor" in {each.role for each in find_graph(family, "int8").card.inputs}
)
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
FOLDER = Path(artifacts.standins.__file__).parent


@functools.cache
def generate_event(family: str, precision: Precision) -> NDArray[np.uint8]:
    """Generate the images of one event, once for all tests."""
    return Generator(family, seed=12, precision=precision).generate_images(3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.slow
def test_digits_are_near_the_public_marginals(family: str) -> None:
    images = generate_event(family, "float32")
    charges = images[images > 0].astype(np.int64)
    assert charges.min() >= 7
    occupancies = (images > 0).mean((1, 2))
    upper = occupancies > 0.009
    assert 0.2 < upper.mean() < 0.6  # 16 sensors of 40 are in layer 1
    assert occupancies[upper].mean() == pytest.approx(0.0149, rel=0.06)
    assert occupancies[~upper].mean() == pytest.approx(0.0051, rel=0.08)
    cumulative = np.cumsum(np.bincount(charges, minlength=256)[7:]) / len(charges)
    expected = np.interp(np.arange(8, 257), SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE)
    assert np.abs(cumulative - expected).max() < 0.04


@pytest.mark.parametrize("family", CONDITIONAL_FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.slow
def test_each_sensor_has_its_own_occupancy(family: str, precision: Precision) -> None:
    ratios = (generate_event(family, precision) > 0).mean((1, 2)) / compute_mean_occupancies()
    assert ratios.mean() == pytest.approx(1.0, abs=0.06)  # the spread of an image is 6.5 % in layer 1, 11 % in layer 2
    assert np.abs(ratios - 1).max() < 0.45
    assert np.abs(ratios - 1).mean() < 0.13


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.slow
def test_clusters_are_near_those_of_the_simulation(family: str, precision: Precision) -> None:
    images = generate_event(family, precision)
    sensor, u_cell, v_cell = np.nonzero(images)
    clusters = describe_clusters(sensor, u_cell, v_cell, images[images > 0])
    sizes, charges = clusters.sizes, clusters.charges
    assert (sizes.mean(), np.median(sizes)) == pytest.approx((1.90, 1.0), rel=0.1)
    assert (charges.mean(), np.median(charges)) == pytest.approx((41.3, 27.0), rel=0.1)


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_within_the_bounds_and_chosen_by_itself(family: str) -> None:
    fidelity = find_graph(family, "int8").card.fidelity
    assert fidelity is not None
    assert fidelity.is_within_bounds
    assert Generator(family, seed=1, provider="cpu").card.precision == "int8"


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_has_the_spectrum_and_the_occupancies_of_float32(family: str) -> None:
    exact, integers = (generate_event(family, each) for each in PRECISIONS)
    spectra = [np.bincount(images.ravel(), minlength=256) for images in (exact, integers)]
    assert compute_charge_w1(*spectra) < 0.6  # an event; of eight hundred images 0.3 is allowed
    occupancies = [(images > 0).mean((1, 2)) for images in (exact, integers)]
    assert occupancies[1].mean() == pytest.approx(occupancies[0].mean(), rel=0.03)
    assert np.corrcoef(occupancies)[0, 1] > 0.99


@torch.no_grad()
@pytest.mark.slow
def test_the_features_of_the_resnet_in_int8_are_not_wider_at_the_edges_of_the_first_cells() -> None:
    latents = np.random.default_rng(13).standard_normal((12, 96), dtype=np.float32)
    model = ResNet().eval()
    model.load_state_dict(rebuild_checkpoint(FOLDER / "resnet.safetensors"))
    exact = model.blocks[:3](model.fc(torch.from_numpy(latents)).view(-1, 256, SEED_HEIGHT, SEED_WIDTH)).numpy()
    graph = onnx.load(find_graph("resnet", "int8").path)
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]
        for value in graph.graph.value_info
    }
    (features,) = (
        node.output[0]
        for node in graph.graph.node
        if node.op_type == "QLinearAdd" and np.prod(shapes[node.output[0]]) == exact[0].size
    )
    first_layers = onnx.utils.Extractor(graph).extract_model(["latent"], [features])
    session = import_onnxruntime().InferenceSession(first_layers.SerializeToString(), providers=[CPU])
    levels = np.concatenate([session.run([features], {"latent": each[None]})[0] for each in latents])
    integers = levels.reshape(-1, 64, 192, 64).transpose(0, 3, 1, 2)
    for axis, n_cells in ((2, SEED_HEIGHT), (3, SEED_WIDTH)):
        by_place = [
            np.moveaxis(values - values.mean((2, 3), keepdims=True), axis, -1).reshape(-1, n_cells, 8).var((0, 1))
            for values in (exact.astype(np.float64), integers.astype(np.float64))
        ]
        ratios = by_place[1] / by_place[0]
        assert ratios == pytest.approx(ratios.mean(), rel=0.006)
