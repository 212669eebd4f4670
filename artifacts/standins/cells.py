"""The features of all cells on some latents: what the late part of a stand-in is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.stats import norm

from artifacts.standins.level import LEVEL_SHARE
from export.families.convnet import ConvNet
from export.families.generator_module import LATENT_SIZE, SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from export.families.generator_module import GeneratorModule

__all__ = ["Cells", "compute_cells"]

_BATCH: Final = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """Features at the level 0.

    Attributes
    ----------
    first_latents : ndarray, shape (n,)
        The latent that sets the level.
    features : Tensor of float32, shape (n, detectors, 64, 192)
        Without that of the level.
    """

    first_latents: NDArray[np.float64]
    features: Tensor

    def batches(self, levels: NDArray[np.float64]) -> Iterator[Tensor]:
        """Go through the features of the first images, at a level for each."""
        for start in range(0, len(levels), _BATCH):
            added = torch.from_numpy(LEVEL_SHARE * levels[start : start + _BATCH]).float()
            yield self.features[start : start + len(added)] + added[:, None, None, None]

    def thresholds(self, rates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Find the thresholds of the first features that are exceeded in a share of the cells each at the level 0."""
        found = []
        for values, rate in zip(self.features.transpose(0, 1), rates, strict=False):
            n_above = max(1, round(rate * values.numel()))
            found.append(float(torch.topk(values.flatten(), n_above).values[-1]))
        return np.array(found)


def compute_cells(
    model: GeneratorModule, n_images: int, seed: int, *, progress: Callable[[float], None] = lambda _: None
) -> Cells:
    """Compute the features of an equalised foundation of level 0.

    Parameters
    ----------
    model : GeneratorModule
    n_images, seed : int
        Of the latents; the first one takes evenly spaced quantiles of the normal distribution.
    progress : callable
        Told the share that is done.
    """
    latents = torch.randn(n_images, LATENT_SIZE, generator=torch.Generator().manual_seed(seed))
    order = np.random.default_rng(seed).permutation(n_images)
    first = norm.ppf((order + 0.5) / n_images)
    latents[:, 0] = torch.from_numpy(first).float()
    parts = []
    with torch.no_grad():
        for start in range(0, n_images, _BATCH):
            seed_map = model.get_submodule("fc")(latents[start : start + _BATCH])
            parts.append(_features(model, seed_map.view(len(seed_map), -1, SEED_HEIGHT, SEED_WIDTH)))
            progress(min(1.0, (start + _BATCH) / n_images))
    return Cells(first_latents=first, features=torch.cat(parts))


def _features(model: GeneratorModule, seed_map: Tensor) -> Tensor:
    if isinstance(model, ResNet):
        found: Tensor = model.blocks[:3](seed_map)[:, 1:]
        return found
    if not isinstance(model, ConvNet):
        message = f"{type(model).__name__} has no foundation"
        raise TypeError(message)
    sums: Tensor = model.features[:13](seed_map)
    return sums
