"""The part of a stand-in that is not trained: random features for every cell of four by four pixels, good by construction.

Weights drawn at random and left at that do not make background: where an image is enlarged, the copies show as seams;
where a convolution meets the border, its features are weaker; hits come at the same places in every image; and as all
layers are linear but for their zeros, a latent a little longer than the mean makes many more hits, and so does a lively cell.
Here every cell of a feature map gets features of the same normal distribution, whatever its place, image and neighbours:

- Each of the four cells that come of one is told by position codes which of the features of the old cell are its own: of the
  channels of a layer a quarter are open in it, the others far below the zero of the ReLU. Features pass through centre
  taps alone, so neither neighbours nor the border have a part in them.
- Features are clipped, each by two channels, and then summed up by the dozen: the sums are near to normal, and their
  variance hardly depends on how long the latent is.
- Sums are made with signs that leave those of one cell hardly correlated (`artifacts.standins.signs`), so that hits do not clump.
- One latent is kept for the level of the whole image (`artifacts.standins.level`).

All weights are small multiples of one number a layer and chosen with integers, so that they are the same on every machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from artifacts.standins import convnet_foundation, resnet_foundation
from export.families.convnet import ConvNet
from export.families.resnet import ResNet

if TYPE_CHECKING:
    from artifacts.standins.level import Level
    from export.families.generator_module import GeneratorModule

__all__ = ["lay_foundation"]


def lay_foundation(family: str, seed: int, level: Level) -> GeneratorModule:
    """Make a model whose early part is laid and whose late part is as PyTorch made it.

    Parameters
    ----------
    family : {"convnet", "resnet"}
    seed : int
        Of the weights.
    level : Level

    Returns
    -------
    GeneratorModule
        In inference mode. The ResNet's `blocks.0` to `.2` are laid, or the ConvNet's `features.0` to `.13`.
    """
    rng = np.random.default_rng(seed)
    model = ResNet() if family == "resnet" else ConvNet()
    with torch.no_grad():
        if isinstance(model, ResNet):
            resnet_foundation.lay(model, rng, level)
        else:
            convnet_foundation.lay(model, rng, level)
    return model.eval()
