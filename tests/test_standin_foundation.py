from __future__ import annotations

import numpy as np
import pytest
import torch

from export.models.convnet import ConvNet
from export.models.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.models.resnet import ResNet
from export.standin.foundation import LEVEL_KNOTS, LEVEL_SHARE, Level, lay_foundation

LEVEL = Level.through(np.sin(np.asarray(LEVEL_KNOTS)))


def test_a_level_goes_through_its_values() -> None:
    assert LEVEL(np.asarray(LEVEL_KNOTS)) == pytest.approx(np.sin(np.asarray(LEVEL_KNOTS)))


@torch.no_grad()
def test_the_level_of_the_resnet_is_the_same_in_every_cell() -> None:
    model = lay_foundation("resnet", 5, LEVEL)
    assert isinstance(model, ResNet)
    latents = torch.randn(3, 96, generator=torch.Generator().manual_seed(1))
    features = model.blocks[:3](model.fc(latents).view(3, -1, SEED_HEIGHT, SEED_WIDTH))
    expected = LEVEL(latents[:, 0].double().numpy())
    assert features[:, 0].numpy() == pytest.approx(np.broadcast_to(expected[:, None, None], (3, 64, 192)), abs=1e-5)
    cells = features[:, 1:] - LEVEL_SHARE * features[:, :1]
    # The border is like the rest; `equalise` makes the variance 1 afterwards.
    for edge in (cells[:, :, 0], cells[:, :, -1], cells[..., 0], cells[..., -1]):
        assert edge.var().item() == pytest.approx(cells.var().item(), rel=0.15)


@torch.no_grad()
def test_a_quarter_of_the_channels_of_the_convnet_is_open_in_every_cell() -> None:
    model = lay_foundation("convnet", 6, LEVEL)
    assert isinstance(model, ConvNet)
    latents = torch.randn(2, 96, generator=torch.Generator().manual_seed(2))
    features = model.features[:13](model.fc(latents).view(2, -1, SEED_HEIGHT, SEED_WIDTH))
    is_open = features.view(2, 4, 16, 64, 192) > -6.5
    assert (is_open.sum(1) == 1).float().mean().item() > 0.999
    # Every channel is open in a quarter of the cells.
    assert is_open.float().mean((0, 3, 4)).numpy() == pytest.approx(np.full((4, 16), 0.25), abs=0.001)
