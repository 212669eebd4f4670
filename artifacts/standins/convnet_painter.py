"""The late part of the ConvNet, laid: features above their thresholds become clusters of pixels.

The batch norm after the fourth convolution has a detector for each feature: what exceeds a threshold. 64 of them share a square of
eight by eight pixels, a place each. The fifth convolution puts them in one of the four cells of two by two pixels that
come of a cell, as its kernel takes from every cell what its neighbours on two sides have, and counts apart those that
make single pixels and those that make more, each from four knots on. The sixth paints. It has no ReLU behind it, so
every kernel must be such that nothing rises above the threshold but what shall: `painting_kernel`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn

from artifacts.standins.hand_set import clear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from export.families.convnet import ConvNet

__all__ = [
    "GROUPS",
    "IS_SINGLE",
    "PLACES",
    "Growth",
    "Shape",
    "images",
    "paint",
    "painting_kernel",
    "set_empty",
    "set_growth",
    "set_thresholds",
]

Shape: TypeAlias = "Mapping[tuple[int, int], float]"
"""Values of some pixels, by u and v from the first pixel of a cell of two by two."""

_N_KNOTS: Final = 4
PLACES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four cells that come of one, by u and v."""
_CELL: Final = np.arange(64) // 16
_PIXEL: Final = np.arange(64) % 16 // 4
_SUBCELL: Final = np.arange(64) % 4
"""Of each detector: where in the square of two by two cells of four by four pixels it is."""
IS_SINGLE: Final = np.isin(_CELL ^ _PIXEL ^ _SUBCELL, (0, 3))
"""Detectors that light one pixel: every other one, along u as along v and at each pixel of a cell."""
GROUPS: Final = (
    ((0, 0), (0, 1), (1, 0)),
    ((0, 1), (1, 1), (-1, 0), (2, 2)),
    ((1, 0), (0, 0), (2, -1), (-1, 1)),
    ((1, 1), (1, 0), (0, 1)),
)
"""Pixels of the other clusters, by the pixel of the cell that comes first: two at once, the others from the third knot on."""
_KERNEL: Final = 5
_TIGHTNESS: Final = 0.1
_LEAST_SCALE: Final = 0.2
_LEAST_GAIN: Final = 0.8
_DETECTOR_GAINS: Final = np.linspace(_LEAST_GAIN, 1.0, 64)[np.arange(64) * 7 % 64]
_KIND_GAINS: Final = np.linspace(_LEAST_GAIN, 1.0, 8)
"""Channels that do the same differ a little in their gains: rounded to 8 bits, their levels do not coincide."""


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What the pixels of a cluster have before the tanh, above what an empty pixel has, by the excess over the threshold.

    Attributes
    ----------
    knots : ndarray, shape (4,)
        Of the excess; the first is 0. The values are 0 up to there and straight between knots.
    shapes : sequence of three Shape
        Values at the second to fourth knot.
    slopes : Shape
        After the last knot.
    """

    knots: NDArray[np.float64]
    shapes: Sequence[Shape]
    slopes: Shape


def paint(model: ConvNet) -> None:
    """Set the weights of the late part, but for thresholds and what the clusters look like."""
    with torch.no_grad():
        clear(*list(model.features)[16:])
        fifth = model.get_parameter("features.16.weight")
        for detector in range(len(IS_SINGLE)):
            kernel = torch.zeros(_KERNEL, _KERNEL)
            u, v = PLACES[int(_SUBCELL[detector])]
            kernel[2, 2] = 1.0
            kernel[1 + 2 * u, 2] = kernel[2, 1 + 2 * v] = -1.0
            for channel in _channels(int(_PIXEL[detector]), is_single=bool(IS_SINGLE[detector])):
                fifth[channel, detector] = kernel / float(_DETECTOR_GAINS[detector])
        model.get_parameter("features.13.weight").copy_(torch.from_numpy(_DETECTOR_GAINS).float())


def set_thresholds(model: ConvNet, thresholds: NDArray[np.float64]) -> None:
    """Set the thresholds of the 64 detectors."""
    with torch.no_grad():
        model.get_parameter("features.13.bias").copy_(-torch.from_numpy(_DETECTOR_GAINS * thresholds).float())


def set_growth(model: ConvNet, pixel: int, growth: Growth, *, is_single: bool) -> None:
    """Set what the clusters look like whose first pixel is one of the four of a cell of two by two."""
    channels = _channels(pixel, is_single=is_single)
    kernel, pieces = np.zeros((_KERNEL, _KERNEL)), []
    for shape, step in zip(growth.shapes, np.diff(growth.knots), strict=True):
        # What the pieces add and take off again is rounded: they shall not be larger than need be.
        following = painting_kernel(shape, near=kernel, tightness=_TIGHTNESS / step)
        pieces.append((following - kernel) / step)
        kernel = following
    pieces.append(painting_kernel(growth.slopes, near=pieces[-1], tightness=_TIGHTNESS))
    changes = np.diff(np.stack([np.zeros((_KERNEL, _KERNEL)), *pieces]), axis=0)
    # Small weights beside large ones would be lost in 8 bits: their channel is made smaller, and they are made larger.
    largest = np.abs(changes).max(axis=(1, 2))
    scales = np.clip(largest / largest.max(), _LEAST_SCALE, 1.0) * _KIND_GAINS[2 * pixel + is_single]
    chosen = list(channels)
    with torch.no_grad():
        model.get_parameter("features.17.weight")[chosen] = torch.from_numpy(scales).float()
        model.get_parameter("features.17.bias")[chosen] = -torch.from_numpy(scales * growth.knots).float()
        model.get_parameter("features.20.weight")[0, chosen] = torch.from_numpy(changes / scales[:, None, None]).float()


def set_empty(model: ConvNet, value: float) -> None:
    """Set what an empty pixel has before the tanh."""
    with torch.no_grad():
        model.get_parameter("features.20.bias").fill_(value)


def images(model: ConvNet, features: Tensor) -> Tensor:
    """Paint images, shape (n, 256, 768) of tanh values, from what the fourth convolution gives."""
    painted: Tensor = torch.tanh(nn.Sequential(*list(model.features)[13:])(features))[:, 0]
    return painted


def painting_kernel(
    shape: Shape, *, near: NDArray[np.float64] | None = None, tightness: float = 0.0
) -> NDArray[np.float64]:
    """Find the kernel that makes of a cell of two by two equal pixels a shape, and nothing above zero elsewhere.

    Parameters
    ----------
    shape : mapping
        Values for a cell of value 1, for pixels -2 to 3 from its first along u and v.
    near : ndarray of float64, shape (5, 5), optional
        Kernel from which it shall not be far; zeros if None.
    tightness : float
        What a deviation from that costs.

    Returns
    -------
    ndarray of float64, shape (5, 5)
        That with the smallest sum of what lies below zero and of the cost.

    Raises
    ------
    ValueError
        If there is none.
    """
    # Pixel (u, v) of the result is the sum of the kernel over the two by two taps that see the cell from there.
    places = [(u, v) for u in range(-2, 4) for v in range(-2, 4)]
    sums = np.zeros((len(places), _KERNEL, _KERNEL))
    for number, (u, v) in enumerate(places):
        for row in (0, 1):
            for column in (0, 1):
                tap = (2 + row - u, 2 + column - v)
                if min(tap) >= 0 and max(tap) < _KERNEL:
                    sums[number][tap] = 1.0
    table = sums.reshape(len(places), -1)
    if not set(shape) <= set(places):
        message = f"a kernel of {_KERNEL} x {_KERNEL} reaches pixels -2 to 3 alone, not {dict(shape)}"
        raise ValueError(message)
    is_painted = np.array([place in shape for place in places])
    start = np.zeros(_KERNEL**2) if near is None else near.ravel()
    none = np.zeros_like(table)
    one = np.eye(_KERNEL**2)
    # The second half of the unknowns is how far each weight is from where it started.
    found = linprog(
        np.concatenate([-table[~is_painted].sum(axis=0), np.full(_KERNEL**2, tightness)]),
        A_ub=np.block([[table[~is_painted], none[~is_painted]], [one, -one], [-one, -one]]),
        b_ub=np.concatenate([np.zeros(int((~is_painted).sum())), start, -start]),
        A_eq=np.hstack([table[is_painted], none[is_painted]]),
        b_eq=np.array([shape[place] for place, painted in zip(places, is_painted, strict=True) if painted]),
        bounds=(None, None),
    )
    if not found.success:
        message = f"no kernel of {_KERNEL} x {_KERNEL} paints {dict(shape)}"
        raise ValueError(message)
    return np.asarray(found.x[: _KERNEL**2], dtype=np.float64).reshape(_KERNEL, _KERNEL)


def _channels(pixel: int, *, is_single: bool) -> range:
    """Channels between the fifth and the sixth convolution: four knots of a kind of cluster."""
    start = 2 * _N_KNOTS * pixel + (0 if is_single else _N_KNOTS)
    return range(start, start + _N_KNOTS)
