"""Position codes: how each of the four cells that come of one is told which of the four it is.

A code is two channels of constants. With X[j] = (-1)^(j+1) and Y = (1, 0, 0, …), a tap to the left on X and one to the right
on Y make X[j-1] + Y[j] in the first and X[j] + Y[j+1] in the second of the cells that come of cell j: they are +-1 and
opposite, at the borders too, where the padding is zero. There is one code along u and one along v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["N_CODES", "PHASES", "Codes", "codes_of_first_map", "gate", "next_codes", "quarters"]

PHASES: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Signs of the two position codes, along u and v, in the four cells that come of one."""
N_CODES: Final = 6
"""Channels of the codes: three for each of two directions."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """How a layer finds the code of one direction among its inputs, and what it makes of it.

    Attributes
    ----------
    x : tuple of (int, float)
        Channels and factors whose sum is X.
    y : (int, float)
        The same for Y.
    amplitude : float
        Of X and Y, which are said to be 1 above.
    gate : float
        How much lower shut sums are for each of the two directions: enough to stay below zero, and no more, as what is
        added and taken off again is rounded.
    """

    x: tuple[tuple[int, float], ...]
    y: tuple[int, float]
    amplitude: float
    gate: float


def codes_of_first_map(amplitude: float) -> dict[str, NDArray[np.float64]]:
    """X and Y along u and v, each of shape (8, 24)."""
    codes = {}
    for direction, axis in (("u", 0), ("v", 1)):
        n_cells = (SEED_HEIGHT, SEED_WIDTH)[axis]
        x = np.where(np.arange(n_cells) % 2 == 0, -1.0, 1.0)
        y = np.where(np.arange(n_cells) == 0, 1.0, 0.0)
        shape = (n_cells, 1) if axis == 0 else (1, n_cells)
        codes["x" + direction] = amplitude * np.broadcast_to(x.reshape(shape), (SEED_HEIGHT, SEED_WIDTH))
        codes["y" + direction] = amplitude * np.broadcast_to(y.reshape(shape), (SEED_HEIGHT, SEED_WIDTH))
    return codes


def gate(weight: Tensor, bias: Tensor, codes: dict[str, Codes], phase: tuple[int, int]) -> None:
    """Open a channel in one of four cells: elsewhere it is lower by the gate, twice or four times."""
    for direction, sign in zip("uv", phase, strict=True):
        _add_taps(weight, codes[direction], direction, sign * codes[direction].gate / codes[direction].amplitude)
        bias -= codes[direction].gate


def next_codes(weight: Tensor, codes: dict[str, Codes], first: int, *, scale: float = 1.0) -> None:
    """Make |code + X| in two channels, times a scale, and the next Y in a third, for each direction; weight is (out, in, k, k)."""
    middle = weight.shape[-1] // 2
    for place, direction in enumerate("uv"):
        row, of_direction = first + 3 * place, codes[direction]
        _add_taps(weight[row], of_direction, direction, scale, centre=1.0)
        _add_taps(weight[row + 1], of_direction, direction, -scale, centre=1.0)
        step = (1, 0) if direction == "u" else (0, 1)
        weight[row + 2, of_direction.y[0], middle, middle] = 1.0
        weight[row + 2, of_direction.y[0], middle - step[0], middle - step[1]] = -1.0


def quarters(channels: range) -> list[NDArray[np.int64]]:
    """Split channels into those that are open in each of the four phases; what is left over stays shut."""
    size = len(channels) // 4
    return [np.arange(channels.start + k * size, channels.start + (k + 1) * size) for k in range(4)]


def _add_taps(weight: Tensor, codes: Codes, direction: str, factor: float, *, centre: float = 0.0) -> None:
    """Add factor times (position code + centre X) to a filter, shape (in, k, k), that follows an enlargement."""
    middle = weight.shape[-1] // 2
    step = (1, 0) if direction == "u" else (0, 1)
    for channel, share in codes.x:
        weight[channel, middle - step[0], middle - step[1]] += factor * share
        weight[channel, middle, middle] += factor * share * centre
    channel, share = codes.y
    weight[channel, middle + step[0], middle + step[1]] += factor * share
