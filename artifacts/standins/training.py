"""Make a stand-in: lay and measure its early part, then lay and fit its late part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from artifacts.standins.cells import compute_cells
from artifacts.standins.convnet_fit import fit_convnet
from artifacts.standins.equalising import measure_factors
from artifacts.standins.foundation import lay_foundation
from artifacts.standins.level import LEVEL_KNOTS, Level
from artifacts.standins.resnet_fit import fit_resnet
from artifacts.standins.standin_file import StandIn
from export.families.convnet import ConvNet
from export.families.resnet import ResNet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["train_standin"]


def train_standin(family: str, seed: int, n_images: int, *, log: Callable[[str], None] = lambda _: None) -> StandIn:
    """Make a stand-in.

    Parameters
    ----------
    family : {"convnet", "resnet"}
    seed : int
        Of weights and latents.
    n_images : int
        On how many the late part is fitted.
    log : callable
        Told what is done.
    """
    log("laying the early part, and measuring it")
    model = lay_foundation(family, seed, Level.through(np.zeros(len(LEVEL_KNOTS))))
    factors = measure_factors(model, seed + 1)
    log(f"computing the features of {n_images} images")
    cells = compute_cells(model, n_images, seed + 2)
    if isinstance(model, ResNet):
        level = fit_resnet(model, cells, log)
    elif isinstance(model, ConvNet):
        level = fit_convnet(model, cells, log)
    return StandIn.of(model, seed, level, factors)
