"""The convolutional generator, 20,444,865 parameters.

The checkpoints number the layers of `features`, those without parameters (ReLU, upsampling) included.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from export.families.family import Family
from export.families.generator_module import (
    LATENT_DRAW,
    LATENT_INPUT,
    LATENT_SIZE,
    SEED_HEIGHT,
    SEED_WIDTH,
    GeneratorModule,
)

__all__ = ["CHANNELS", "FAMILY", "ConvNet"]

CHANNELS: Final = (512, 512, 256, 128, 64, 32)


class ConvNet(GeneratorModule):
    """Linear layer, five times (5x5 convolution, batch norm, ReLU, nearest x2), 5x5 convolution, tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LATENT_SIZE, CHANNELS[0] * SEED_HEIGHT * SEED_WIDTH)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(CHANNELS):
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=5, padding=2),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="nearest"),
            ]
        layers.append(nn.Conv2d(CHANNELS[-1], 1, kernel_size=5, padding=2))
        self.features = nn.Sequential(*layers)

    def full_image(self, latent: Tensor) -> Tensor:
        """Compute the uncropped image, float32 (n, 1, 256, 768) in [-1, 1], from a latent (n, 96)."""
        seed = self.fc(latent).view(-1, CHANNELS[0], SEED_HEIGHT, SEED_WIDTH)
        return torch.tanh(self.features(seed))


FAMILY: Final = Family(
    name="convnet", module_class=ConvNet, draws=(LATENT_DRAW,), inputs=(LATENT_INPUT,), cut=None, min_charge=1
)
