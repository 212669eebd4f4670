"""Equal features: sums that in each of the cells that come of one have the mean 0, the variance 1 and no correlation.

Sums of a few terms differ by some percent in their variance, and are correlated by some percent. The rate of hits grows
tenfold while a threshold moves by one standard deviation: without this the cells that come of one would differ in their
rates, which shows as seams. So the factors of the sums are changed a little, to make their measured covariance that of white noise.

The measurement is kept with a stand-in: made again on another machine it would differ in its last digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from artifacts.standins import convnet_foundation, resnet_foundation
from artifacts.standins.gated_sums import GatedSums, fill_sums
from export.families.convnet import ConvNet
from export.families.generator_module import LATENT_SIZE, SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet, UpsamplingBlock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from export.families.generator_module import GeneratorModule

__all__ = ["Factors", "equalise", "measure_factors"]

Factors: TypeAlias = "dict[str, Tensor]"
"""By the names of convolutions: `<name>.factors`, shape (sums, terms), and `<name>.means`, shape (sums,), of gated sums."""

_LATENTS: Final = 192
_OPEN: Final = -3.5
"""Above this the mean of a group of sums is where they are open: it is near 0 there, and near -7 elsewhere."""


def equalise(model: GeneratorModule, factors: Factors) -> None:
    """Put measured factors into a foundation as `lay_foundation` made it."""
    with torch.no_grad():
        for sums in _gated_sums(model):
            _put(model, sums, factors)


def measure_factors(model: GeneratorModule, seed: int) -> Factors:
    """Measure the factors of a foundation on latents.

    Parameters
    ----------
    model : GeneratorModule
        As `lay_foundation` made it; the factors are put into it.
    seed : int
        Of the latents.
    """
    latents = torch.randn(_LATENTS, LATENT_SIZE, generator=torch.Generator().manual_seed(seed))
    latents[:, 0] = 0.0  # the level is added to all, and is none of the variance
    found: Factors = {}
    with torch.no_grad():
        first_map = model.get_submodule("fc")(latents).view(_LATENTS, -1, SEED_HEIGHT, SEED_WIDTH)
        for sums, inputs in zip(_gated_sums(model), _inputs(model, first_map), strict=True):
            convolution = model.get_submodule(sums.convolution)
            found |= _whitened(sums, convolution, convolution(inputs))
            _put(model, sums, found)
    return found


def _gated_sums(model: GeneratorModule) -> tuple[GatedSums, ...]:
    return resnet_foundation.SUMS if isinstance(model, ResNet) else convnet_foundation.SUMS


def _inputs(model: GeneratorModule, first_map: Tensor) -> Iterator[Tensor]:
    """Compute the inputs of the convolutions with gated sums, with what has been put into those before."""
    features = first_map
    if isinstance(model, ConvNet):
        layers = list(model.features)
        for start in range(0, 4 * len(convnet_foundation.SUMS), 4):
            features = nn.Sequential(*layers[start : start + 4])(features)
            yield features
    for block in model.children() if isinstance(model, ResNet) else ():
        if isinstance(block, nn.Sequential):
            for part in list(block)[: len(resnet_foundation.SUMS)]:
                if isinstance(part, UpsamplingBlock):
                    yield functional.interpolate(
                        functional.relu(part.norm1(features)), scale_factor=2.0, mode="nearest"
                    )
                    features = part(features)


def _whitened(sums: GatedSums, convolution: nn.Module, hidden: Tensor) -> Factors:
    """Factors that make the sums that are open together uncorrelated, and their means."""
    weight = convolution.get_parameter("weight")
    middle = weight.shape[-1] // 2
    terms = sums.inputs[0].reshape(len(sums.inputs[0]), -1)[:, 0]
    factors, means = [], []
    for group in sums.rows:
        rows = torch.from_numpy(group.reshape(len(group), -1)[:, 0].copy())
        values = hidden[:, rows].transpose(0, 1).flatten(1)
        values = values[:, values.mean(0) > _OPEN]
        covariance = torch.cov(values).double()
        # The inverse root that changes the sums least.
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        whitening = vectors @ torch.diag(eigenvalues**-0.5) @ vectors.T
        factors.append(whitening @ weight[rows][:, terms, middle, middle].double())
        means.append(whitening @ values.mean(1).double())
    return {
        f"{sums.convolution}.factors": torch.cat(factors).float(),
        f"{sums.convolution}.means": torch.cat(means).float(),
    }


def _put(model: GeneratorModule, sums: GatedSums, factors: Factors) -> None:
    fill_sums(model, sums, factors[f"{sums.convolution}.factors"])
    means = model.get_buffer(f"{sums.norm}.running_mean")
    start = 0
    for group in sums.rows:
        of_group = factors[f"{sums.convolution}.means"][start : start + len(group)]
        for column in group.reshape(len(group), -1).T:
            means[column] = of_group
        start += len(group)
