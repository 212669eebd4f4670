"""Build the early part of a stand-in: layers that turn a latent into white-noise features of cells of 4 x 4 pixels.

The weights follow from a seed and from fitted tensors. Random weights alone do not make white noise: the copies of a
doubled cell are equal and show as seams, zero padding weakens the border, and a long latent or an active cell makes all
features larger at once. Therefore

- the first map has independent features in each cell (`white_noise`);
- features pass through centre taps alone, so that neither neighbours nor the border matter;
- position codes open a quarter of the channels in each child of a doubled cell, so that children differ;
- features are clipped and then summed: sums of dozens of terms are nearly normal, and their variance hardly depends on
  the length of the latent;
- one latent is reserved for the level of the image (`level`).

The weights of the gated sums are stored. They were fitted so that the measured covariance of the sums is white.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch

from artifacts.standins.position_codes import PHASES, Codes, gate_channels
from artifacts.standins.white_noise import draw_balanced_signs, draw_white_noise, list_opposite_signs
from export.families.generator_module import LATENT_SIZE, SEED_HEIGHT, SEED_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from artifacts.standins.level import Level
    from export.families.generator_module import GeneratorModule

__all__ = [
    "Channels",
    "EarlyLayers",
    "State",
    "SumLayer",
    "build_early_layers",
    "pair",
    "split_by_phase",
    "view_centre_taps",
    "view_first_map",
]

State: TypeAlias = "dict[str, Tensor]"
"""A state dict."""
Channels: TypeAlias = "NDArray[np.int64]"
"""Channels of n features, shape (n, 1), or (n, 2) for clipped features, which are the difference of two channels."""
_CLIP: Final = 0.6
"""Features are clipped to +-0.6, as ReLU(x + 0.6) - ReLU(x - 0.6), which is 0.6 more."""


@dataclass(frozen=True, kw_only=True)
class SumLayer:
    """A convolution whose centre taps form weighted sums of features.

    Attributes
    ----------
    convolution : str
    norm : str
        Batch norm before the ReLU that the convolution reads. Its biases clip the inputs or lift them above zero.
    inputs : tuple of Channels
        Terms of the sums. Four groups, one for each phase, share the weights; one of them is open in a cell.
    outputs : tuple of Channels
        The sums; four groups, one for each phase, if they are gated.
    codes : Codes, optional
        Position codes that gate the sums.
    n_rotations : int
        0 if the weights are balanced signs. Else they are stored, and their fit began with so many random rotations.
    begins_with_opposite_signs : bool
        Whether the first rows of signs are `list_opposite_signs`.
    """

    convolution: str
    norm: str
    inputs: tuple[Channels, ...]
    outputs: tuple[Channels, ...]
    codes: Codes | None = None
    n_rotations: int = 0
    begins_with_opposite_signs: bool = False

    @property
    def n_terms(self) -> int:
        """Number of terms of a sum."""
        return len(self.inputs[0])

    @property
    def n_sums(self) -> list[int]:
        """Number of sums in each group of outputs."""
        return [len(group) for group in self.outputs]


@dataclass(frozen=True, kw_only=True)
class EarlyLayers:
    """The early part of one family.

    Attributes
    ----------
    module : type of GeneratorModule
        The network.
    features : Channels
        Of the 94 features in the first map.
    lift : float
        Added to features that are not clipped. It keeps most of them above the zero of the ReLU.
    sums : tuple of SumLayer
        In the order of the network.
    connect : callable
        Writes the weights of position codes and level into a state dict.
    """

    module: type[GeneratorModule]
    features: Channels
    lift: float
    sums: tuple[SumLayer, ...]
    connect: Callable[[State, Level], None]

    def list_fitted_shapes(self) -> dict[str, tuple[int, ...]]:
        """List the names and shapes of the fitted tensors: weights and means of the gated sums."""
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in self.sums:
            if layer.n_rotations:
                shapes[f"{layer.convolution}.factors"] = (sum(layer.n_sums), layer.n_terms)
                shapes[f"{layer.convolution}.means"] = (sum(layer.n_sums),)
        return shapes


def build_early_layers(early: EarlyLayers, state: State, seed: int, level: Level, fitted: State) -> None:
    """Write the weights of the early part into a state dict.

    Parameters
    ----------
    early : EarlyLayers
    state : State
        Its early part must be zero, its batch norms the identity.
    seed : int
        Of the random numbers.
    level : Level
    fitted : State
        Tensors of `EarlyLayers.list_fitted_shapes`.
    """
    rng = np.random.default_rng(seed)
    weight, _ = view_first_map(state)
    noise = torch.from_numpy(draw_white_noise(rng)).float()
    for channels in early.features.T:
        weight[channels] = noise
    for layer in early.sums:
        _write_sums(layer, state, _find_factors(layer, rng, fitted))
        _write_norm_bias(layer, state, early.lift)
    for layer, following in pairwise(early.sums):
        if layer.n_rotations:
            means = torch.split(fitted[f"{layer.convolution}.means"], layer.n_sums)
            for group, group_means in zip(layer.outputs, means, strict=True):
                state[f"{following.norm}.running_mean"][group] = group_means[:, None]
    early.connect(state, level)


def view_first_map(state: State) -> tuple[Tensor, Tensor]:
    """View the linear layer: weights of shape (channels, 192, 96), biases of shape (channels, 8, 24)."""
    weight = state["fc.weight"].view(-1, SEED_HEIGHT * SEED_WIDTH, LATENT_SIZE)
    return weight, state["fc.bias"].view(-1, SEED_HEIGHT, SEED_WIDTH)


def view_centre_taps(state: State, convolution: str) -> Tensor:
    """View the centre taps of a convolution, shape (out, in)."""
    weight = state[f"{convolution}.weight"]
    middle = weight.shape[-1] // 2
    return weight[:, :, middle, middle]


def pair(channels: Sequence[int] | Channels) -> Channels:
    """Pair adjacent channels for clipped features; one that remains is dropped."""
    return np.array(channels[: len(channels) // 2 * 2]).reshape(-1, 2)


def split_by_phase(channels: range) -> tuple[Channels, ...]:
    """Split the channels of unclipped features into four equal groups; those that remain are dropped."""
    size = len(channels) // 4
    return tuple(np.array(channels[phase * size : (phase + 1) * size])[:, None] for phase in range(4))


def _find_factors(layer: SumLayer, rng: np.random.Generator, fitted: State) -> Tensor:
    n_sums, n_terms = sum(layer.n_sums), layer.n_terms
    if layer.n_rotations:
        # The fitted factors replace these numbers. They are drawn so that the following ones stay the same.
        rng.standard_normal((layer.n_rotations, n_terms, n_terms - 1))
        return fitted[f"{layer.convolution}.factors"]
    first_rows = list_opposite_signs(n_terms) if layer.begins_with_opposite_signs else None
    signs = draw_balanced_signs(rng, n_sums, n_terms, first_rows=first_rows)
    return torch.from_numpy(signs / np.sqrt(n_terms)).float()


def _write_sums(layer: SumLayer, state: State, factors: Tensor) -> None:
    taps = view_centre_taps(state, layer.convolution)
    for group, group_factors in zip(layer.outputs, torch.split(factors, layer.n_sums), strict=True):
        for rows in group.T:
            for terms in layer.inputs:
                for columns, sign in zip(terms.T, (1, -1), strict=False):
                    taps[rows[:, None], columns] = sign * group_factors
    if layer.codes is not None:
        weight, bias = (state[f"{layer.convolution}.{kind}"] for kind in ("weight", "bias"))
        for group, phase in zip(layer.outputs, PHASES, strict=True):
            gate_channels(weight, bias, group.ravel(), layer.codes, phase)


def _write_norm_bias(layer: SumLayer, state: State, lift: float) -> None:
    bias = state[f"{layer.norm}.bias"]
    for terms in layer.inputs:
        bias[terms] = torch.tensor([_CLIP, -_CLIP] if terms.shape[1] == 2 else [lift])
