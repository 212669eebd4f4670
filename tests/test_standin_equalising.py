from __future__ import annotations

import numpy as np
import pytest
import torch

from artifacts.standins import equalising
from artifacts.standins.foundation import lay_foundation
from artifacts.standins.level import LEVEL_KNOTS, Level
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet

LEVEL = Level.through(np.zeros(len(LEVEL_KNOTS)))
N_IMAGES = 8


@pytest.fixture(scope="module")
def measured() -> dict[str, equalising.Factors]:
    """Factors of both models, measured on the latents of seed 1."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(equalising, "_LATENTS", N_IMAGES)
        return {
            family: equalising.measure_factors(lay_foundation(family, 7, LEVEL), 1) for family in ("convnet", "resnet")
        }


@torch.no_grad()
def variances_by_cell(family: str, factors: equalising.Factors | None, latent_seed: int) -> torch.Tensor:
    """Variance of the features in each of the sixteen cells that come of one of two blocks before."""
    model = lay_foundation(family, 7, LEVEL)
    if factors is not None:
        equalising.equalise(model, factors)
    latents = torch.randn(N_IMAGES, 96, generator=torch.Generator().manual_seed(latent_seed))
    seed = model.get_submodule("fc")(latents).view(N_IMAGES, -1, SEED_HEIGHT, SEED_WIDTH)
    if isinstance(model, ResNet):
        features = model.blocks[:3](seed)[:, 1:]
    else:
        hidden = list(model.get_submodule("features").children())
        features = torch.nn.Sequential(*hidden[:14])(seed).view(N_IMAGES, 4, 16, 64, 192).amax(1)
    cells = [features[:, :, u::4, v::4] for u in range(4) for v in range(4)]
    return torch.stack([cell.var() for cell in cells])


@pytest.mark.parametrize("family", ["resnet", "convnet"])
def test_features_get_the_same_variance_in_all_cells(family: str, measured: dict[str, equalising.Factors]) -> None:
    factors = measured[family]
    before, after = variances_by_cell(family, None, 2), variances_by_cell(family, factors, 2)
    assert after.numpy() == pytest.approx(1.0, abs=0.06)
    assert (after.std() / after.mean()).item() < 0.02
    assert ((before - 1).abs() > 0.5).all()


def test_sums_that_are_open_together_are_uncorrelated(measured: dict[str, equalising.Factors]) -> None:
    model = lay_foundation("convnet", 7, LEVEL)
    equalising.equalise(model, measured["convnet"])
    latents = torch.randn(N_IMAGES, 96, generator=torch.Generator().manual_seed(1))
    latents[:, 0] = 0.0
    with torch.no_grad():
        seed = model.get_submodule("fc")(latents).view(N_IMAGES, -1, SEED_HEIGHT, SEED_WIDTH)
        layers = list(model.get_submodule("features").children())
        sums = torch.nn.Sequential(*layers[:10])(seed)[:, 8:36]  # the first quarter of the third convolution
    values = sums.transpose(0, 1).flatten(1)
    values = values[:, values.mean(0) > -1.5]
    assert values.shape[1] == N_IMAGES * 32 * 96 // 4
    assert torch.cov(values).numpy() == pytest.approx(np.eye(28), abs=1e-3)
    assert values.mean(1).numpy() == pytest.approx(2.0, abs=1e-3)  # what keeps most of them above zero
