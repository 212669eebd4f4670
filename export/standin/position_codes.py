"""Position codes: how each of the four cells that come of one is told which of the four it is.

A code is two channels of constants. With X[j] = (-1)^(j+1) and Y = (1, 0, 0, …), a tap to the left on X and one to the right
on Y make X[j-1] + Y[j] in the first and X[j] + Y[j+1] in the second of the cells that come of cell j: they are +-1 and
opposite, at the borders too, where the padding is zero; all of it times `AMPLITUDE`. There is one code along u and one along v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.models.generator_module import SEED_HEIGHT, SEED_WIDTH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["AMPLITUDE", "N_CODES", "PHASES", "Codes", "codes_of_first_map", "gate", "next_codes", "quarters"]

PHASES: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Signs of the two position codes, along u and v, in the four cells that come of one."""
N_CODES: Final = 6
"""Channels of the codes: three for each of two directions."""
AMPLITUDE: Final = float(np.sqrt(7.0))
"""Of X and Y. The taps on them are the largest weights of a filter: they shall not be much larger than the others, for 8 bits to
tell these apart, and be a round multiple, seven, of the equal ones of the ConvNet's last sums."""
_GATE: Final = 3.5
"""Shut sums, of variance 1, are 7 lower and stay below zero. No larger: what it adds and takes off again is rounded."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """How a layer finds the code of one direction among its inputs: (channel, factor) whose sum is X, and the channel Y."""

    x: tuple[tuple[int, float], ...]
    y: int


def codes_of_first_map() -> dict[str, NDArray[np.float64]]:
    """X and Y along u and v, each of shape (8, 24)."""
    codes = {}
    for direction, axis in (("u", 0), ("v", 1)):
        n_cells = (SEED_HEIGHT, SEED_WIDTH)[axis]
        x = np.where(np.arange(n_cells) % 2 == 0, -1.0, 1.0)
        y = np.where(np.arange(n_cells) == 0, 1.0, 0.0)
        shape = (n_cells, 1) if axis == 0 else (1, n_cells)
        codes["x" + direction] = AMPLITUDE * np.broadcast_to(x.reshape(shape), (SEED_HEIGHT, SEED_WIDTH))
        codes["y" + direction] = AMPLITUDE * np.broadcast_to(y.reshape(shape), (SEED_HEIGHT, SEED_WIDTH))
    return codes


def gate(weight: Tensor, bias: Tensor, codes: dict[str, Codes], phase: tuple[int, int]) -> None:
    """Open a channel in one of four cells: elsewhere it is at least 2 _GATE lower."""
    for direction, sign in zip("uv", phase, strict=True):
        _add_taps(weight, codes, direction, sign * _GATE / AMPLITUDE)
    bias -= 2 * _GATE


def next_codes(weight: Tensor, codes: dict[str, Codes], first: int) -> None:
    """Make |code + X| in two channels and the next Y in a third, for each direction; weight is (out, in, k, k)."""
    middle = weight.shape[-1] // 2
    for place, direction in enumerate("uv"):
        row = first + 3 * place
        _add_taps(weight[row], codes, direction, 1.0, centre=1.0)
        _add_taps(weight[row + 1], codes, direction, -1.0, centre=1.0)
        step = (1, 0) if direction == "u" else (0, 1)
        weight[row + 2, codes[direction].y, middle, middle] = 1.0
        weight[row + 2, codes[direction].y, middle - step[0], middle - step[1]] = -1.0


def quarters(channels: range) -> list[NDArray[np.int64]]:
    """Split channels into those that are open in each of the four phases; what is left over stays shut."""
    size = len(channels) // 4
    return [np.arange(channels.start + k * size, channels.start + (k + 1) * size) for k in range(4)]


def _add_taps(weight: Tensor, codes: dict[str, Codes], direction: str, factor: float, *, centre: float = 0.0) -> None:
    """Add factor times (position code + centre X) to a filter, shape (in, k, k), that follows an enlargement."""
    middle = weight.shape[-1] // 2
    step = (1, 0) if direction == "u" else (0, 1)
    for channel, sign in codes[direction].x:
        weight[channel, middle - step[0], middle - step[1]] += factor * sign
        weight[channel, middle, middle] += factor * sign * centre
    weight[codes[direction].y, middle + step[0], middle + step[1]] += factor
