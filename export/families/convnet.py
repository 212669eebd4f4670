"""The convolutional generator, 20,444,865 parameters.

`features` is an unbroken sequence, so that the layers without parameters (ReLU, upsampling) take the
indices that the checkpoints leave out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from export.families.generator_module import LATENT_SIZE, SEED_HEIGHT, SEED_WIDTH, GeneratorModule

CHANNELS: Final = (512, 512, 256, 128, 64, 32)


class ConvNet(GeneratorModule):
    """Linear layer, five times (5x5 convolution, batch norm, ReLU, nearest x2), 5x5 convolution, tanh."""

    family: ClassVar[str] = "convnet"

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
