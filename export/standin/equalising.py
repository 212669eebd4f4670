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
from export.standin.foundation import quarters

if TYPE_CHECKING:
    from torch import Tensor

    from export.models import GeneratorModule

__all__ = ["equalise", "first_hidden"]

_LATENTS: Final = 192
_OPEN: Final = -6.0
"""Above this a gated channel is open: shut ones are near -12."""
_FIRST_HIDDEN: Final = (23, 6, 0)


def first_hidden(block: int) -> int:
    """Find the first gated channel of a block of the ResNet."""
    return _FIRST_HIDDEN[block]


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
        features = model.get_submodule("fc")(latents)
        if isinstance(model, ResNet):
            features = features.view(_LATENTS, -1, SEED_HEIGHT, SEED_WIDTH)
            for number, block in enumerate(list(model.blocks.children())[:3]):
                if isinstance(block, UpsamplingBlock):
                    features = _equalise_block(block, features, first_hidden(number))
        elif isinstance(model, ConvNet):
            features = features.view(_LATENTS, -1, SEED_HEIGHT, SEED_WIDTH)
            for place in (0, 4, 8, 12):
                features = _equalise_layer(
                    nn.Sequential(*list(model.features)[place : place + 4]), features, gated=place > 0
                )


def _equalise_block(block: UpsamplingBlock, features: Tensor, first: int) -> Tensor:
    main = functional.interpolate(functional.relu(block.norm1(features)), scale_factor=2.0, mode="nearest")
    hidden = block.conv1(main)
    channels = range(first, hidden.shape[1])
    groups = quarters(channels)
    _standardise(block.norm2, hidden, [int(row) for group in groups for row in group], gated=True)
    shown = functional.relu(block.norm2(hidden))
    level_and_codes = 7 if first else 1
    rows = range(level_and_codes, block.conv2.out_channels)
    for group in groups:
        is_open = (hidden[:, group] > _OPEN).any(1)
        partial = functional.conv2d(shown[:, group], block.conv2.weight[rows.start :, group], padding=1)
        values = partial.transpose(0, 1)[:, is_open]
        index = torch.arange(rows.start, rows.stop)[:, None]
        block.conv2.weight[index, torch.from_numpy(group)] /= values.std(1)[:, None, None, None]
    return torch.add(block.conv2(shown), functional.interpolate(block.conv(features), scale_factor=2.0, mode="nearest"))


def _equalise_layer(layers: nn.Sequential, features: Tensor, *, gated: bool) -> Tensor:
    convolution, norm = layers[0], layers[1]
    hidden = convolution(features)
    if isinstance(norm, nn.BatchNorm2d):
        n_out = hidden.shape[1]
        if not gated:
            rows = list(range(23, n_out))
        else:
            rows = [int(row) for group in quarters(range(8 if n_out > 64 else 0, n_out)) for row in group]
        _standardise(norm, hidden, rows, gated=gated)
    result: Tensor = layers[1:](hidden)
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
        norm.running_var[row] = values.var() - 1e-5
