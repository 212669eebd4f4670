from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from export.models.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.models.resnet import ResNet
from export.standin import equalising
from export.standin.foundation import LEVEL_KNOTS, N_DETECTORS, Level, lay_foundation

if TYPE_CHECKING:
    from export.models import GeneratorModule

LEVEL = Level(constant=0.0, slopes=(0.0,) * len(LEVEL_KNOTS))
N_IMAGES = 24


@torch.no_grad()
def variances_by_phase(model: GeneratorModule, seed: int) -> torch.Tensor:
    """Variance of each feature in each of the four cells that come of one."""
    latents = torch.randn(N_IMAGES, 96, generator=torch.Generator().manual_seed(seed))
    seed = model.get_submodule("fc")(latents).view(N_IMAGES, -1, SEED_HEIGHT, SEED_WIDTH)
    if isinstance(model, ResNet):
        features = model.blocks[:3](seed)[:, 1:]
    else:
        hidden = list(model.get_submodule("features").children())
        features = torch.nn.Sequential(*hidden[:14])(seed)
        features = features.view(N_IMAGES, 4, N_DETECTORS, 64, 192).amax(1)
    cells = [features[:, :, u::2, v::2] for u in (0, 1) for v in (0, 1)]
    return torch.stack([cell.var(dim=(0, 2, 3)) for cell in cells])


@pytest.mark.parametrize("family", ["resnet", "convnet"])
def test_features_get_the_variance_1_in_each_of_four_cells(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equalising, "_LATENTS", N_IMAGES)
    model = lay_foundation(family, 7, LEVEL)
    before = variances_by_phase(model, 1)
    equalising.equalise(model, 1)
    # Measured on these latents, it is right on them to the rounding.
    assert variances_by_phase(model, 1).numpy() == pytest.approx(1.0, abs=0.02)
    assert ((before - 1).abs() > 0.05).all()
    # On others so few latents leave a common factor; the cells and features stay alike.
    fresh = variances_by_phase(model, 2)
    assert (fresh.std() / fresh.mean()).item() < 0.5 * (before.std() / before.mean()).item()
