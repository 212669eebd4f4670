"""The residual generator, 6,648,097 parameters."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.families.family import Family
from export.families.generator_module import (
    LATENT_DRAW,
    LATENT_INPUT,
    LATENT_SIZE,
    SEED_HEIGHT,
    SEED_WIDTH,
    GeneratorModule,
)

__all__ = ["CHANNELS", "FAMILY", "ResNet", "UpsamplingBlock"]

CHANNELS: Final = (256, 256, 128, 64, 32, 16)


class UpsamplingBlock(nn.Module):
    """A pre-activation residual block that doubles height and width."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, kernel_size=3, padding=1)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, kernel_size=3, padding=1)
        self.conv = nn.Conv2d(n_in, n_out, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, 2h, 2w)."""
        main = _upsample(functional.relu(self.norm1(features)))
        main = functional.relu(self.norm2(self.conv1(main)))
        return torch.add(self.conv2(main), self.conv(_upsample(features)))


class ResNet(GeneratorModule):
    """Linear layer, five upsampling residual blocks, batch norm, ReLU, 3x3 convolution, tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(LATENT_SIZE, CHANNELS[0] * SEED_HEIGHT * SEED_WIDTH)
        self.blocks = nn.Sequential(*(UpsamplingBlock(n_in, n_out) for n_in, n_out in pairwise(CHANNELS)))
        self.norm = nn.BatchNorm2d(CHANNELS[-1])
        self.conv = nn.Conv2d(CHANNELS[-1], 1, kernel_size=3, padding=1)

    def full_image(self, latent: Tensor) -> Tensor:
        """Compute the uncropped image, float32 (n, 1, 256, 768) in [-1, 1], from a latent (n, 96)."""
        seed = self.fc(latent).view(-1, CHANNELS[0], SEED_HEIGHT, SEED_WIDTH)
        features = self.blocks(seed)
        return torch.tanh(self.conv(functional.relu(self.norm(features))))


def _upsample(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


FAMILY: Final = Family(
    name="resnet", module_class=ResNet, draws=(LATENT_DRAW,), inputs=(LATENT_INPUT,), cut=None, min_charge=1
)
