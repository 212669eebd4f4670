from __future__ import annotations

import pytest
import torch

from export.models.convnet import ConvNet
from export.models.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.standin import equalising
from export.standin.foundation import LEVEL_KNOTS, Level, lay_foundation

LEVEL = Level(constant=0.0, slopes=(0.0,) * len(LEVEL_KNOTS))


@torch.no_grad()
def test_open_features_get_mean_0_and_variance_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equalising, "_LATENTS", 16)
    model = lay_foundation("convnet", 7, LEVEL)
    equalising.equalise(model, 1)
    assert isinstance(model, ConvNet)
    latents = torch.randn(16, 96, generator=torch.Generator().manual_seed(2))
    features = model.features[:14](model.fc(latents).view(16, -1, SEED_HEIGHT, SEED_WIDTH))
    largest = features.view(16, 4, 16, 64, 192).amax(1)
    assert largest.mean().item() == pytest.approx(0.0, abs=0.05)
    assert largest.var().item() == pytest.approx(1.0, abs=0.1)
