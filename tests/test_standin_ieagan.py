"""The stand-in of IEA-GAN: what its layers compute, sensor by sensor."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import artifacts.standins
from artifacts.standins.ieagan_layers import FEATURES, list_fitted_shapes
from artifacts.standins.marginals import compute_mean_occupancies
from artifacts.standins.rebuild import rebuild_checkpoint
from export.charge import find_charge_thresholds
from export.families.ieagan import IeaGan, SpectralNorm, divide_by_spectral_norm

FILE = Path(artifacts.standins.__file__).parent / "ieagan.safetensors"
N_IMAGES = 6


@functools.cache
def load_standin() -> IeaGan:
    model = IeaGan().eval()
    model.load_state_dict(rebuild_checkpoint(FILE))
    return model


@functools.cache
@torch.no_grad()
def compute_features() -> torch.Tensor:
    """Compute the features of the cells of 4 x 4 pixels, shape (n, 32, 64, 192)."""
    model, latents = load_standin(), torch.randn(N_IMAGES, 128, generator=torch.Generator().manual_seed(1))
    condition = torch.cat([model.relate_sensors()[:N_IMAGES], latents], dim=1)
    values = model.linear(condition).view(N_IMAGES, 512, 4, 12)
    for block in model.blocks[:8]:
        values = block.get_submodule("0")(values, condition)
    return torch.as_tensor(values[:, FEATURES[-1].ravel()])


def test_the_file_is_small_and_has_what_is_documented() -> None:
    assert FILE.stat().st_size < 100_000
    with safe_open(FILE, framework="pt") as file:
        names = file.keys()
        assert {name: file.get_tensor(name).shape for name in names} == list_fitted_shapes()


def test_every_spectral_norm_is_1_so_that_the_stored_weights_are_those_that_count() -> None:
    for name, layer in load_standin().named_modules():
        if isinstance(layer, SpectralNorm):
            effective = divide_by_spectral_norm(layer.weight.detach(), layer.u0, 1e-6)
            exact = name != "output_layer.2"  # its only row has the length 1 but for rounding
            assert torch.equal(effective, layer.weight) if exact else torch.allclose(effective, layer.weight), name


@torch.no_grad()
def test_the_embedding_of_a_sensor_is_a_unit_vector() -> None:
    embeddings = load_standin().relate_sensors()
    assert torch.allclose(embeddings, torch.eye(40, 128), atol=1e-6)


def test_features_are_white_in_every_child_and_at_the_border() -> None:
    features = compute_features().double().numpy()
    features /= features.std((0, 2, 3), keepdims=True)
    children = np.array([features[:, :, u::8, v::8].var() for u in range(8) for v in range(8)])
    assert children == pytest.approx(1.0, abs=0.05)
    assert children.std() < 0.015
    for edge in (features[:, :, 0], features[:, :, -1], features[..., 0], features[..., -1]):
        assert edge.var() == pytest.approx(1.0, abs=0.06)
    for one, other in ((features[:, :, :-1], features[:, :, 1:]), (features[..., :-1], features[..., 1:])):
        assert abs((one * other).mean()) < 0.03
    for one, other in ((features[0], features[1]), (features[2], features[5])):
        assert abs((one * other).mean()) < 0.02


@torch.no_grad()
@pytest.mark.slow
def test_each_sensor_has_its_own_occupancy_on_the_same_features() -> None:
    model, features = load_standin(), compute_features()
    values = torch.zeros(1, 128, 64, 192)
    threshold = float(find_charge_thresholds()[6])
    found = []
    for sensor in (0, 8, 16, 27):
        condition = torch.cat([model.relate_sensors()[[sensor]], torch.zeros(1, 128)], dim=1)
        n_hits = 0
        for image in features[:2]:
            values[0, FEATURES[-1].ravel()] = image
            clusters = values
            for block in model.blocks[9:]:
                clusters = block.get_submodule("0")(clusters, condition)
            n_hits += int((torch.tanh(model.output_layer(clusters)) >= threshold).sum())
        found.append(n_hits / (2 * 256 * 768))
    assert found == pytest.approx(compute_mean_occupancies()[[0, 8, 16, 27]], rel=0.12)
