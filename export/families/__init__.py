"""PyTorch modules whose state-dict keys and shapes are those of the collaboration's checkpoints."""

from __future__ import annotations

from typing import Final

from export.families.convnet import ConvNet
from export.families.generator_module import LATENT_SIZE, GeneratorModule
from export.families.resnet import ResNet

__all__ = ["FAMILIES", "LATENT_SIZE", "ConvNet", "GeneratorModule", "ResNet"]

FAMILIES: Final[dict[str, type[GeneratorModule]]] = {"convnet": ConvNet, "resnet": ResNet}
"""The generators that can be exported, by the name of their family."""
