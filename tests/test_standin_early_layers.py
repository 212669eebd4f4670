from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors import safe_open

import artifacts.standins
from artifacts.standins.level import KNOTS, LEVEL_SHARE
from artifacts.standins.position_codes import N_CODE_CHANNELS, PHASES, find_codes, gate_channels, write_next_codes
from artifacts.standins.rebuild import rebuild_checkpoint
from artifacts.standins.white_noise import draw_balanced_signs, draw_white_noise, list_opposite_signs
from export.families.convnet import ConvNet
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.families.generator_module import GeneratorModule

FOLDER = Path(artifacts.standins.__file__).parent
FAMILY_NAMES = ("convnet", "resnet")
N_IMAGES = 8


@functools.cache
def load_standin(family: str) -> GeneratorModule:
    model = ResNet().eval() if family == "resnet" else ConvNet().eval()
    model.load_state_dict(rebuild_checkpoint(FOLDER / f"{family}.safetensors"))
    return model


@torch.no_grad()
def compute_features(family: str, latents: torch.Tensor, n_layers: int | None = None) -> NDArray[np.float64]:
    """Compute what the early part of a stand-in, or its first layers, gives: shape (n, channels, height, width)."""
    model = load_standin(family)
    layers = model.get_submodule("blocks" if family == "resnet" else "features")
    assert isinstance(layers, torch.nn.Sequential)
    early = layers[: n_layers or (3 if family == "resnet" else 13)]
    first_map = model.get_submodule("fc")(latents).view(len(latents), -1, SEED_HEIGHT, SEED_WIDTH)
    return np.asarray(early(first_map).double().numpy())


def evaluate_level(family: str, latents: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the level of a stand-in at values of latent 0, piece by piece."""
    with safe_open(FOLDER / f"{family}.safetensors", framework="numpy") as file:
        constant, step, *slopes = file.get_tensor("level").tolist()
    *knots, step_start = KNOTS
    rising = sum(slope * np.maximum(latents - knot, 0) for slope, knot in zip(slopes, knots, strict=True))
    return np.asarray(constant + rising + step * np.clip(10 * (latents - step_start), 0, 1))


@pytest.fixture(scope="module")
def white_features() -> dict[str, NDArray[np.float64]]:
    """Features of each family without their level; where a channel of the ConvNet is gated, the one that is open."""
    latents = torch.randn(N_IMAGES, 96, generator=torch.Generator().manual_seed(2))
    resnet, convnet = (compute_features(family, latents) for family in ("resnet", "convnet"))
    level = evaluate_level("convnet", latents[:, 0].double().numpy())
    return {
        "resnet": resnet[:, 1:] - LEVEL_SHARE * resnet[:, :1],
        "convnet": convnet.reshape(N_IMAGES, 4, 16, 64, 192).max(1) - LEVEL_SHARE * level[:, None, None, None],
    }


LEVEL_LATENTS = np.array([-3.0, -1.3, 0.25, 0.31, 1.1, 3.0])
"""The step of the level lies between 0.2 and 0.3."""


def test_the_level_of_the_resnet_is_a_channel_of_every_cell() -> None:
    latents = torch.randn(len(LEVEL_LATENTS), 96, generator=torch.Generator().manual_seed(1))
    latents[:, 0] = torch.from_numpy(LEVEL_LATENTS)
    found = compute_features("resnet", latents)[:, 0]
    assert np.abs(found - evaluate_level("resnet", LEVEL_LATENTS)[:, None, None]).max() < 1e-5


@pytest.mark.slow
def test_the_level_of_the_convnet_is_added_to_every_feature() -> None:
    latents = torch.randn(1, 96, generator=torch.Generator().manual_seed(3)).repeat(len(LEVEL_LATENTS), 1)
    latents[:, 0] = torch.from_numpy(LEVEL_LATENTS)
    features = compute_features("convnet", latents)
    level = LEVEL_SHARE * evaluate_level("convnet", LEVEL_LATENTS)
    assert np.abs(features - features[:1] - (level - level[0])[:, None, None, None]).max() < 1e-4


def test_a_quarter_of_the_channels_of_the_convnet_is_open_in_every_cell() -> None:
    latents = torch.randn(2, 96, generator=torch.Generator().manual_seed(2))
    features = compute_features("convnet", latents).reshape(2, 4, 16, 64, 192).mean(2)
    is_open = features > -3.5
    assert (is_open.sum(1) == 1).all()
    assert is_open.mean((0, 2, 3)).tolist() == [0.25] * 4


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.slow
def test_features_have_the_variance_1_in_every_child_and_at_the_border(
    family: str, white_features: dict[str, NDArray[np.float64]]
) -> None:
    features = white_features[family]
    children = np.array([features[:, :, u::4, v::4].var() for u in range(4) for v in range(4)])
    assert children == pytest.approx(1.0, abs=0.06)
    assert children.std() < 0.02 * children.mean()
    for edge in (features[:, :, 0], features[:, :, -1], features[..., 0], features[..., -1]):
        assert edge.var() == pytest.approx(features.var(), rel=0.06)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_features_are_white_within_a_cell_and_between_neighbours(
    family: str, white_features: dict[str, NDArray[np.float64]]
) -> None:
    features = white_features[family]
    n_channels = features.shape[1]
    # Opposite rows of signs give correlations of -1, which no two thresholds exceed together.
    within = np.corrcoef(np.moveaxis(features, 1, 0).reshape(n_channels, -1)) - np.eye(n_channels)
    assert within.max() < 0.6
    assert np.sqrt((np.maximum(within, 0) ** 2).mean()) < 0.16
    for one, other in ((features[:, :, :-1], features[:, :, 1:]), (features[..., :-1], features[..., 1:])):
        assert abs((one * other).mean()) < 0.02


def test_gated_sums_that_are_open_together_are_white_and_lifted_above_zero() -> None:
    latents = torch.randn(N_IMAGES, 96, generator=torch.Generator().manual_seed(4))
    latents[:, 0] = 0.0
    sums = compute_features("convnet", latents, n_layers=10)[:, 8:36]  # of one phase, after the third convolution
    values = np.moveaxis(sums, 1, 0).reshape(28, -1)
    values = values[:, values.mean(0) > -1.5]
    assert values.shape[1] == N_IMAGES * 32 * 96 // 4
    assert np.cov(values) == pytest.approx(np.eye(28), abs=0.06)
    assert values.mean(1) == pytest.approx(2.0, abs=0.05)


def test_the_features_of_the_first_map_are_an_orthogonal_transformation_of_94_latents() -> None:
    weights = draw_white_noise(np.random.default_rng(1))
    assert weights.shape == (94, SEED_HEIGHT * SEED_WIDTH, 96)
    assert not weights[:, :, 0].any()
    for cell in (0, 191):
        assert weights[:, cell] @ weights[:, cell].T == pytest.approx(np.eye(94))


def test_balanced_rows_have_as_many_of_either_sign_and_little_correlation() -> None:
    rows = draw_balanced_signs(np.random.default_rng(1), 48, 28)
    assert rows.shape == (48, 28)
    assert not rows.sum(axis=1).any()
    assert set(np.unique(rows).tolist()) == {-1, 1}
    products = rows @ rows.T - 28 * np.eye(48, dtype=int)
    assert products.max() <= 14
    first_rows = list_opposite_signs(16)
    assert np.array_equal(draw_balanced_signs(np.random.default_rng(2), 40, 16, first_rows=first_rows)[:30], first_rows)


@pytest.mark.parametrize(("n_terms", "largest_product"), [(16, 0), (28, 4)])
def test_opposite_rows_are_balanced_and_orthogonal_or_opposite(n_terms: int, largest_product: int) -> None:
    rows = list_opposite_signs(n_terms)
    assert rows.shape[1] == n_terms
    assert not rows.sum(axis=1).any()
    assert np.array_equal(rows[::2], -rows[1::2])
    products = np.abs(rows[::2] @ rows[::2].T) - n_terms * np.eye(len(rows) // 2, dtype=int)
    assert products.max() == largest_product


@torch.no_grad()
@pytest.mark.parametrize("shape", [(4, 6), (1, 3), (8, 24)])
def test_position_codes_open_one_phase_in_each_child_and_make_the_next_codes(shape: tuple[int, int]) -> None:
    amplitude = 2.0
    u, v = (torch.arange(n) for n in shape)
    signals = [(2.0 * (cells % 2) - 1.0, (cells == 0).float()) for cells in (u, v)]
    maps = [torch.broadcast_to(signal[:, None], shape) for signal in signals[0]]
    maps += [torch.broadcast_to(signal, shape) for signal in signals[1]]
    codes = find_codes(0, amplitude=amplitude, gate=3.5)
    first = amplitude * torch.stack([maps[0], -maps[0], maps[1], maps[2], -maps[2], maps[3]]).clamp(min=0)
    doubled = torch.nn.functional.interpolate(first[None], scale_factor=2.0)
    weight, bias = torch.zeros(4 + N_CODE_CHANNELS, N_CODE_CHANNELS, 3, 3), torch.zeros(4 + N_CODE_CHANNELS)
    for channel, phase in enumerate(PHASES):
        gate_channels(weight, bias, np.array([channel]), codes, phase)
    write_next_codes(weight, codes, 4)
    result = torch.nn.functional.conv2d(doubled, weight, bias, padding=1)[0]
    # Each channel is 0 in one of the four children of every cell, and -7 or -14 in the others.
    is_open = result[:4].abs() < 1e-5
    assert (is_open.sum(0) == 1).all()
    assert result[:4][~is_open].max() < -6.9
    for channel in range(4):
        assert is_open[channel].view(shape[0], 2, shape[1], 2).sum((1, 3)).eq(1).all()
    next_u = result[4].relu() + result[5].relu() - amplitude
    next_v = result[7].relu() + result[8].relu() - amplitude
    assert torch.equal(next_u, amplitude * (2.0 * (torch.arange(2 * shape[0]) % 2) - 1.0)[:, None].expand_as(next_u))
    assert torch.equal(next_v, amplitude * (2.0 * (torch.arange(2 * shape[1]) % 2) - 1.0).expand_as(next_v))
    assert torch.equal(result[6] > 0, (torch.arange(2 * shape[0]) == 0)[:, None].expand_as(next_u))
    assert torch.equal(result[9] > 0, (torch.arange(2 * shape[1]) == 0).expand_as(next_v))
