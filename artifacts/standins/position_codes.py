"""Position codes: constant channels by which a convolution tells the four children of a doubled cell apart.

Nearest-neighbour doubling copies cell j of a row to the children 2j and 2j + 1, which then have equal values. Two
constant channels make them differ: X[j] = (-1)^(j+1) and Y = (1, 0, 0, ...). After the doubling, a kernel with the
weight 1 on the left neighbour of X and on the right neighbour of Y computes

    code = X[j-1] + Y[j] in child 2j,     code = X[j] + Y[j+1] in child 2j + 1.

One is +1 and the other -1, also at the borders, where the padding is zero. There is a code along u and one along v; the
pair of their signs is the phase of a child. |code + X| is 0 in first children and 2 in second ones, thus the X of the
next doubling is |code + X| - 1. The next Y is the positive part of Y minus its left neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import torch

from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "N_CODE_CHANNELS",
    "PHASES",
    "Codes",
    "PositionCode",
    "find_codes",
    "gate_channels",
    "list_first_codes",
    "write_next_codes",
]

PHASES: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Signs of the codes along u and v in the four children of a cell."""
N_CODE_CHANNELS: Final = 6
"""Three for each direction: two of X, which must pass a ReLU, and Y."""


@dataclass(frozen=True, kw_only=True)
class PositionCode:
    """Where a convolution finds the code of one direction among its input channels.

    Attributes
    ----------
    step : (int, int)
        (1, 0) along u, (0, 1) along v.
    x : tuple of (int, float)
        Channels and weights whose sum is X times the amplitude.
    y : (int, float)
        Channel and weight that give Y times the amplitude.
    amplitude : float
    gate : float
        Half of what is subtracted from a channel for each direction in which the phase is wrong. It keeps the channel
        below the zero of the ReLU. It is not larger, because 8 bits round what is added and subtracted again.
    """

    step: tuple[int, int]
    x: tuple[tuple[int, float], ...]
    y: tuple[int, float]
    amplitude: float
    gate: float


Codes: TypeAlias = tuple[PositionCode, PositionCode]
"""Along u and along v."""


def find_codes(first: int, *, amplitude: float, gate: float) -> Codes:
    """Find the codes in the six channels from `first` on: X, -X and Y along u, then along v, all cut off at zero."""
    along_u, along_v = (
        PositionCode(
            step=step, x=((channel, 1.0), (channel + 1, -1.0)), y=(channel + 2, 1.0), amplitude=amplitude, gate=gate
        )
        for step, channel in (((1, 0), first), ((0, 1), first + 3))
    )
    return along_u, along_v


def list_first_codes(
    amplitude: float, *, height: int = SEED_HEIGHT, width: int = SEED_WIDTH
) -> list[tuple[Tensor, Tensor]]:
    """List X and Y of the first feature map, along u and along v; each broadcasts to (height, width)."""
    along_u, along_v = torch.arange(height)[:, None], torch.arange(width)
    return [(amplitude * (2.0 * (cells % 2) - 1.0), amplitude * (cells == 0)) for cells in (along_u, along_v)]


def gate_channels(
    weight: Tensor, bias: Tensor, channels: NDArray[np.int64], codes: Codes, phase: tuple[int, int]
) -> None:
    """Open output channels in the children of one phase and lower them in the others.

    Parameters
    ----------
    weight : Tensor, shape (out, in, k, k)
    bias : Tensor, shape (out,)
    channels : ndarray of int64, shape (n,)
    codes : Codes
    phase : (int, int)
        One of `PHASES`.
    """
    for code, sign in zip(codes, phase, strict=True):
        _add_taps(weight, channels, code, sign * code.gate / code.amplitude)
        bias[channels] -= code.gate


def write_next_codes(weight: Tensor, codes: Codes, first: int, *, scale: float = 1.0) -> None:
    """Write the kernels of the next map's codes into six output channels of a weight of shape (out, in, k, k).

    For each direction: scale * (code + X) and its negative, whose ReLUs add up to |code + X|, and the next Y.
    """
    middle = weight.shape[-1] // 2
    for channel, code in zip((first, first + 3), codes, strict=True):
        _add_taps(weight, channel, code, scale, centre=1.0)
        _add_taps(weight, channel + 1, code, -scale, centre=1.0)
        weight[channel + 2, code.y[0], middle, middle] = 1.0
        weight[channel + 2, code.y[0], middle - code.step[0], middle - code.step[1]] = -1.0


def _add_taps(
    weight: Tensor, channels: int | NDArray[np.int64], code: PositionCode, factor: float, *, centre: float = 0.0
) -> None:
    """Add factor * (code + centre * X) to output channels."""
    middle = weight.shape[-1] // 2
    u, v = code.step
    for source, share in code.x:
        weight[channels, source, middle - u, middle - v] += factor * share
        weight[channels, source, middle, middle] += factor * share * centre
    source, share = code.y
    weight[channels, source, middle + u, middle + v] += factor * share
