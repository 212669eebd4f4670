"""Measured scales of a foundation: features of mean 0 and variance 1, in each of the cells that come of one.

Random sums of a few terms differ by some percent in their variance, and the rate of hits grows tenfold while a threshold
moves by one standard deviation: without this the cells that come of one would differ in their rates, which shows as seams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import nn
from torch.nn import functional

from export.models import LATENT_SIZE
from export.models.convnet import ConvNet
from export.models.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.models.resnet import ResNet, UpsamplingBlock
from export.standin.foundation import CONVNET_GATED_FROM, RESNET_FEATURES_FROM, RESNET_GATED_FROM, quarters

if TYPE_CHECKING:
    from torch import Tensor

    from export.models import GeneratorModule

__all__ = ["equalise"]

_LATENTS: Final = 192
_OPEN: Final = -6.0
"""Above this a gated channel is open: shut ones are near -12."""
_CONVNET_LAYERS: Final = (0, 4, 8, 12)
"""Places of the convolutions of the foundation among the ConvNet's layers."""


def equalise(model: GeneratorModule, seed: int) -> None:
    """Measure the scales on latents and put them into the batch norms and the second convolutions.

    Parameters
    ----------
    model : GeneratorModule
        As `lay_foundation` made it; changed in place.
    seed : int
        Of the latents.
    """
    latents = torch.randn(_LATENTS, LATENT_SIZE, generator=torch.Generator().manual_seed(seed))
    latents[:, 0] = 0.0  # the level is added to all, and is none of the variance
    with torch.no_grad():
        features = model.get_submodule("fc")(latents).view(_LATENTS, -1, SEED_HEIGHT, SEED_WIDTH)
        if isinstance(model, ResNet):
            blocks = [block for block in model.blocks if isinstance(block, UpsamplingBlock)]
            for block, gated_from, features_from in zip(blocks, RESNET_GATED_FROM, RESNET_FEATURES_FROM, strict=False):
                features = _equalise_block(block, features, gated_from, features_from)
        elif isinstance(model, ConvNet):
            for place, first in zip(_CONVNET_LAYERS, CONVNET_GATED_FROM, strict=True):
                layers = nn.Sequential(*list(model.features)[place : place + 4])
                features = _equalise_layers(layers, features, first, gated=place > 0)


def _equalise_block(block: UpsamplingBlock, features: Tensor, gated_from: int, features_from: int) -> Tensor:
    main = functional.interpolate(functional.relu(block.norm1(features)), scale_factor=2.0, mode="nearest")
    hidden = block.conv1(main)
    groups = quarters(range(gated_from, hidden.shape[1]))
    _standardise(block.norm2, hidden, [row for group in groups for row in group.tolist()], gated=True)
    shown = functional.relu(block.norm2(hidden))
    for group in groups:
        is_open = (hidden[:, group] > _OPEN).any(1)
        weight = block.conv2.weight[features_from:, group]
        values = functional.conv2d(shown[:, group], weight, padding=1).transpose(0, 1)[:, is_open]
        block.conv2.weight[features_from:, group] = weight / values.std(1)[:, None, None, None]
    return torch.add(block.conv2(shown), functional.interpolate(block.conv(features), scale_factor=2.0, mode="nearest"))


def _equalise_layers(layers: nn.Sequential, features: Tensor, first: int, *, gated: bool) -> Tensor:
    convolution, norm, *others = layers
    hidden = convolution(features)
    if isinstance(norm, nn.BatchNorm2d):
        _standardise(norm, hidden, list(range(first, hidden.shape[1])), gated=gated)
    result: Tensor = nn.Sequential(norm, *others)(hidden)
    return result


def _standardise(norm: nn.BatchNorm2d, hidden: Tensor, rows: list[int], *, gated: bool) -> None:
    if norm.running_mean is None or norm.running_var is None:
        message = "the batch norms of the generators keep statistics"
        raise ValueError(message)
    for row in rows:
        values = hidden[:, row]
        if gated:
            values = values[values > _OPEN]
        norm.running_mean[row] = values.mean()
        norm.running_var[row] = values.var() - norm.eps
