"""Weights of layers that are set by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import nn

from artifacts.standins.signs import hadamard
from export.families.generator_module import LATENT_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["N_INDEPENDENT", "bias_of", "clear", "fill_orthogonal_rows", "pairs", "sum_up", "unit_factors"]

_BLOCKS: Final = (16, 16, 16, 16, 16, 8, 4, 2)
"""Sizes of the orthogonal matrices that mix the latents, whose weights are plus or minus one number."""
N_INDEPENDENT: Final = sum(_BLOCKS)
"""Features of the first map."""


def clear(*modules: nn.Module) -> None:
    """Zero weights and biases; batch norms become the identity."""
    for module in (part for whole in modules for part in whole.modules()):
        for parameter in module.parameters(recurse=False):
            parameter.zero_()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.weight.fill_(1.0)
            module.running_mean.zero_()
            module.running_var.fill_(1.0 - module.eps)  # which the batch norm adds


def bias_of(layer: nn.Conv2d) -> Tensor:
    """Give the bias of a convolution, which those of the generators have."""
    if layer.bias is None:
        message = "the convolutions of the generators have biases"
        raise ValueError(message)
    return layer.bias


def fill_orthogonal_rows(weight: Tensor, rng: np.random.Generator) -> None:
    """Make features of the first map, weight of shape (94, positions, 96), independent of each other at every position.

    At each position they are an orthogonal transformation of the latents but the first, which is the level's, and one other.
    """
    rows = block_diag(*(hadamard(size) / np.sqrt(size) for size in _BLOCKS))
    for position in range(weight.shape[1]):
        latents = 1 + rng.permutation(LATENT_SIZE - 1)[:N_INDEPENDENT]
        signs = rng.integers(0, 2, N_INDEPENDENT) * 2 - 1
        drawn = (rows * signs)[rng.permutation(N_INDEPENDENT)]
        weight[:, position, torch.from_numpy(latents)] = torch.from_numpy(drawn).float()


def pairs(channels: Iterable[int]) -> NDArray[np.int64]:
    """Pair adjacent channels, shape (n, 2); one that is left over stays alone."""
    listed = list(channels)
    return np.array(listed[: len(listed) // 2 * 2]).reshape(-1, 2)


def sum_up(weight: Tensor, row: int, factors: Tensor, groups: Sequence[NDArray[np.int64]]) -> None:
    """Fill the centre tap of one filter of weight (out, in, k, k): a sum of channels, with a factor for each.

    Of each of several groups, of which one is open in a cell, the same places are taken. A group is of shape (n,), or
    (n, 2) for clipped features, which are the differences of two channels.
    """
    middle = weight.shape[-1] // 2
    for group in groups:
        if group.ndim == 1:
            weight[row, group, middle, middle] = factors
        else:
            weight[row, group[:, 0], middle, middle] = factors
            weight[row, group[:, 1], middle, middle] = -factors


def unit_factors(signs: NDArray[np.int64]) -> Tensor:
    """Make factors, shape (rows, terms), of signs: the variance of a sum of uncorrelated terms is then their mean variance."""
    return torch.from_numpy(signs / np.sqrt(signs.shape[1])).float()
