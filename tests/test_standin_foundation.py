from __future__ import annotations

import numpy as np
import pytest
import torch

from artifacts.standins.foundation import lay_foundation
from artifacts.standins.level import LEVEL_KNOTS, LEVEL_SHARE, STEP_FROM, Level
from artifacts.standins.signs import balanced_signs, opposite_signs, orthogonal_rows
from export.families.convnet import ConvNet
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet

LEVEL = Level.through(np.sin(np.asarray(LEVEL_KNOTS)), step=0.7)


def test_a_level_goes_through_its_values_and_then_steps() -> None:
    knots = np.asarray(LEVEL_KNOTS)
    expected = np.sin(knots) + np.where(knots > STEP_FROM, 0.7 * np.minimum(10 * (knots - STEP_FROM), 1), 0)
    assert LEVEL(knots) == pytest.approx(expected)
    assert LEVEL(np.array([-9.0, 9.0])) == pytest.approx([np.sin(-2.4), np.sin(2.4) + 0.7])


@torch.no_grad()
def test_the_level_of_the_resnet_is_the_same_in_every_cell() -> None:
    model = lay_foundation("resnet", 5, LEVEL)
    assert isinstance(model, ResNet)
    latents = torch.randn(3, 96, generator=torch.Generator().manual_seed(1))
    latents[:, 0] = torch.tensor([-1.3, 0.25, 1.1])  # the step is between the second and its ends
    features = model.blocks[:3](model.fc(latents).view(3, -1, SEED_HEIGHT, SEED_WIDTH))
    expected = LEVEL(latents[:, 0].double().numpy())
    assert np.abs(features[:, 0].double().numpy() - expected[:, None, None]).max() < 1e-5
    cells = features[:, 1:] - LEVEL_SHARE * features[:, :1]
    # The border is like the rest; `equalise` makes the variance 1 afterwards.
    for edge in (cells[:, :, 0], cells[:, :, -1], cells[..., 0], cells[..., -1]):
        assert edge.var().item() == pytest.approx(cells.var().item(), rel=0.15)


@torch.no_grad()
def test_the_level_of_the_convnet_is_added_to_every_feature() -> None:
    shifts = np.array([-1.3, 0.25, 1.1])
    latents = torch.randn(1, 96, generator=torch.Generator().manual_seed(3)).repeat(3, 1)
    latents[:, 0] = torch.from_numpy(shifts).float()
    model = lay_foundation("convnet", 5, LEVEL)
    assert isinstance(model, ConvNet)
    features = model.features[:13](model.fc(latents).view(3, -1, SEED_HEIGHT, SEED_WIDTH)).double().numpy()
    expected = LEVEL_SHARE * (LEVEL(shifts) - LEVEL(shifts[:1]))
    assert np.abs(features - features[:1] - expected[:, None, None, None]).max() < 1e-4


@torch.no_grad()
def test_a_quarter_of_the_channels_of_the_convnet_is_open_in_every_cell() -> None:
    model = lay_foundation("convnet", 6, Level.through(np.zeros(len(LEVEL_KNOTS))))
    assert isinstance(model, ConvNet)
    latents = torch.randn(2, 96, generator=torch.Generator().manual_seed(2))
    features = model.features[:13](model.fc(latents).view(2, -1, SEED_HEIGHT, SEED_WIDTH))
    is_open = features.view(2, 4, 16, 64, 192).mean(2) > -3.5
    assert (is_open.sum(1) == 1).all()
    assert is_open.float().mean((0, 2, 3)).tolist() == [0.25] * 4


def test_balanced_rows_have_as_much_of_either_sign_and_are_little_alike() -> None:
    rows = balanced_signs(np.random.default_rng(1), 48, 28, given=None)
    assert rows.shape == (48, 28)
    assert not rows.sum(axis=1).any()
    assert set(np.unique(rows).tolist()) == {-1, 1}
    products = rows @ rows.T - 28 * np.eye(48, dtype=int)
    assert products.max() <= 14
    given = opposite_signs(16)
    assert np.array_equal(balanced_signs(np.random.default_rng(2), 40, 16, given=given)[:30], given)


def test_opposite_rows_are_orthogonal_or_opposite() -> None:
    rows = opposite_signs(16)
    products = rows @ rows.T
    assert rows.shape == (30, 16)
    assert not rows.sum(axis=1).any()
    assert set(np.unique(products).tolist()) == {-16, 0, 16}
    assert np.array_equal(rows[::2], -rows[1::2])


def test_orthogonal_rows_have_no_sum() -> None:
    rows = orthogonal_rows(np.random.default_rng(3), 40, 30)
    assert rows.shape == (40, 30)
    assert rows.sum(axis=1) == pytest.approx(0, abs=1e-12)
    assert rows[:29] @ rows[:29].T == pytest.approx(np.eye(29), abs=1e-12)
    assert (rows**2).sum(axis=1) == pytest.approx(1)
