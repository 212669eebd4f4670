"""What is shipped: stand-ins, made of the files in artifacts/standins, and as near to the public marginals as docs/stand-ins.md says."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch

import artifacts.standins
from artifacts.standins.spectrum import wanted_cumulative
from artifacts.standins.standin_file import checkpoint, read_standin
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet
from export.fidelity import compute_charge_w1
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.inference.providers import CPU, import_onnxruntime
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Precision

FAMILIES = ("convnet", "resnet")
PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
FOLDER = Path(artifacts.standins.__file__).parent


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_of_a_standin_makes_the_checkpoint_of_the_shipped_graphs(family: str, tmp_path: Path) -> None:
    state = checkpoint(read_standin(FOLDER / f"{family}.safetensors"))
    path = tmp_path / "checkpoint.safetensors"
    safetensors.torch.save_file(state, path)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    cards = [find_graph(graph.name, graph.precision).card for graph in read_manifest() if graph.name == family]
    assert {card.precision for card in cards} == {"float32", "int8"}
    for card in cards:
        assert card.checkpoint_sha256 == expected
        assert (card.family, card.nature, card.min_charge) == (family, "stand-in", 7)
        assert "not the collaboration's" in card.provenance


@functools.cache
def event_of(family: str, precision: Precision) -> NDArray[np.uint8]:
    """Generate the images of one event, once for all tests."""
    return Generator(family, seed=12, precision=precision).generate_images(3)


@pytest.mark.parametrize("family", FAMILIES)
def test_digits_are_near_the_public_marginals(family: str) -> None:
    images = event_of(family, "float32")
    charges = images[images > 0].astype(np.int64)
    assert charges.min() >= 7
    occupancies = (images > 0).mean((1, 2))
    upper = occupancies > 0.009
    assert 0.2 < upper.mean() < 0.6  # 16 sensors of 40 are in layer 1
    assert occupancies[upper].mean() == pytest.approx(0.0149, rel=0.06)
    assert occupancies[~upper].mean() == pytest.approx(0.0051, rel=0.08)
    cumulative = np.cumsum(np.bincount(charges, minlength=256)[7:]) / len(charges)
    assert np.abs(cumulative - wanted_cumulative()[1:]).max() < 0.04


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_within_the_bounds_and_chosen_by_itself(family: str) -> None:
    fidelity = find_graph(family, "int8").card.fidelity
    assert fidelity is not None
    assert fidelity.is_within_bounds
    assert Generator(family, seed=1, provider="cpu").card.precision == "int8"


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_has_the_spectrum_and_the_occupancies_of_float32(family: str) -> None:
    exact, integers = (event_of(family, each) for each in PRECISIONS)
    spectra = [np.bincount(images.ravel(), minlength=256) for images in (exact, integers)]
    assert compute_charge_w1(*spectra) < 0.6  # an event; of eight hundred images 0.3 is allowed
    occupancies = [(images > 0).mean((1, 2)) for images in (exact, integers)]
    assert occupancies[1].mean() == pytest.approx(occupancies[0].mean(), rel=0.03)
    assert np.corrcoef(occupancies)[0, 1] > 0.99


@torch.no_grad()
def test_the_features_of_the_resnet_in_int8_are_not_wider_at_the_edges_of_the_first_cells() -> None:
    latents = np.random.default_rng(13).standard_normal((12, 96), dtype=np.float32)
    model = ResNet().eval()
    model.load_state_dict(checkpoint(read_standin(FOLDER / "resnet.safetensors")))
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
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(features))
    session = import_onnxruntime().InferenceSession(graph.SerializeToString(), providers=[CPU])
    levels = np.concatenate([session.run([features], {"latent": each[None]})[0] for each in latents])
    integers = levels.reshape(-1, 64, 192, 64).transpose(0, 3, 1, 2)
    for axis, n_cells in ((2, SEED_HEIGHT), (3, SEED_WIDTH)):
        by_place = [
            np.moveaxis(values - values.mean((2, 3), keepdims=True), axis, -1).reshape(-1, n_cells, 8).var((0, 1))
            for values in (exact.astype(np.float64), integers.astype(np.float64))
        ]
        ratios = by_place[1] / by_place[0]
        assert ratios == pytest.approx(ratios.mean(), rel=0.006)
