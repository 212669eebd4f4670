"""Gated sums: channels of a layer that sum features up, each open in one of the four cells that come of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from artifacts.standins.hand_set import bias_of, sum_up
from artifacts.standins.position_codes import PHASES, Codes, gate

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["GatedSums", "fill_sums", "open_gates"]


@dataclass(frozen=True, kw_only=True)
class GatedSums:
    """Which channels of a layer are gated sums, and of what.

    Attributes
    ----------
    convolution, norm : str
        Names of the convolution and of the batch norm that follows it.
    rows : sequence of four ndarray
        Channels that are open in each of `PHASES`, shape (n,), or (n, 2) where every sum is made twice, to be clipped.
    inputs : sequence of ndarray
        Channels that are summed, as in `sum_up`.
    """

    convolution: str
    norm: str
    rows: Sequence[NDArray[np.int64]]
    inputs: Sequence[NDArray[np.int64]]


def open_gates(model: nn.Module, sums: GatedSums, codes: dict[str, Codes]) -> None:
    """Set the taps on the position codes."""
    layer = _layer(model, sums)
    for phase, group in zip(PHASES, sums.rows, strict=True):
        for row in group.ravel().tolist():
            gate(layer.weight[row], bias_of(layer)[row], codes, phase)


def fill_sums(model: nn.Module, sums: GatedSums, factors: Tensor) -> None:
    """Set the factors, shape (sums of all four phases, terms)."""
    layer = _layer(model, sums)
    n_sums = [len(group) for group in sums.rows]
    for group, group_factors in zip(sums.rows, torch.split(factors, n_sums), strict=True):
        for channels, values in zip(group.reshape(len(group), -1).tolist(), group_factors, strict=True):
            for row in channels:
                sum_up(layer.weight, row, values, sums.inputs)


def _layer(model: nn.Module, sums: GatedSums) -> nn.Conv2d:
    layer = model.get_submodule(sums.convolution)
    if not isinstance(layer, nn.Conv2d):
        message = f"{sums.convolution} is no convolution"
        raise TypeError(message)
    return layer
