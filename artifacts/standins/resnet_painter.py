"""The late part of the ResNet, laid: features above their thresholds become clusters of pixels.

Block 3 has a detector for each of 61 features: what exceeds a threshold. Each lights one of the four cells of two by two
pixels that come of a cell, as a kernel takes from every cell what its neighbours on two sides have. Block 4 does it once more, to
single pixels, and paints a shape around each. Detectors differ in their places and shapes: single pixels, pairs, groups, and
lines of six pixels that block 3 begins to paint. A cluster's charges follow from by how much the feature exceeds the
threshold, those of lines from two other features too; a curve of sixteen pieces in the last batch norm and convolution makes the charge spectrum.

Two things are there for 8 bits, which a value of a layer may have: what exceeds a threshold by much is made smaller, so that
the others get more of the 256 levels; and channels that do the same differ a little in their gains, so that their levels do not coincide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from artifacts.standins.hand_set import bias_of, clear
from export.families.resnet import ResNet, UpsamplingBlock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "KIND_OF_DETECTOR",
    "LINE",
    "LINE_GAIN",
    "LINE_LOSS",
    "N_PIECES",
    "Curve",
    "paint",
    "raw_images",
    "set_curve",
    "set_thresholds",
]

N_PIECES: Final = 16
"""Channels of the last batch norm: pieces of the curve."""
_PLACES: Final = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four cells that come of one, by u and v."""
LINE: Final = 3
KIND_OF_DETECTOR: Final = np.repeat(range(4), (16, 16, 16, 13))
"""Singles, pairs, groups and lines: detectors 4 p + s of a kind light pixel p of the cell of two by two at s."""
_MODULATORS: Final = (62, 63)
"""The features that are no detectors: with them the two halves of a line go their own ways.

Were all charges of a large cluster made by one number, it would come again, alone in its neighbourhood, some day.
"""
_MODULATION: Final = 0.18
_OFFSET: Final = 2.0
"""Lifts the modulators above zero in nearly all cells, as they must pass a ReLU."""
_MODULATOR_GAIN: Final = 0.25
LINE_LOSS: Final = _MODULATION * _OFFSET
"""What the modulators take off a line's excess, on average."""
LINE_GAIN: Final = 0.5
_SHADOW: Final = 0.2
"""Of the pixel before it, what is taken off a pixel of a line along an axis, so that no two have the same charge."""
_BEND: Final = 0.3
"""What exceeds a threshold by more is made smaller; of lines, all is."""
_BENT: Final = 0.3
"""By how much."""
_LEAST_SCALE: Final = 0.2
_LEAST_GAIN: Final = 0.8
_DETECTOR_GAINS: Final = np.linspace(_LEAST_GAIN, 1.0, 61)[np.arange(61) * 7 % 61]
_SPREAD: Final = np.arange(16) * 7 % 16
_CHANNEL_GAINS: Final = np.linspace(_LEAST_GAIN, 1.0, 16)[_SPREAD]
"""Between blocks 3 and 4; within block 4 in reverse."""
_LAST_OFFSETS: Final = 0.003 * _SPREAD / 16
"""Of the image, in each of the channels after block 4: fractions of about a level in 8 bits."""

_PAIRS: Final[tuple[dict[tuple[int, int], float], ...]] = (
    {(0, 0): 1.0, (0, 1): 0.7},
    {(0, 0): 1.0, (1, 0): 0.7},
    {(0, 0): 1.0, (0, -1): 0.6},
    {(0, 0): 1.0, (-1, 0): 0.6},
)
_GROUPS: Final[tuple[dict[tuple[int, int], float], ...]] = (
    {(0, 0): 1.0, (0, 1): 0.8, (1, 0): 0.5},
    {(0, 0): 1.0, (0, 1): 0.9, (0, -1): 0.6},
    {(0, 0): 1.0, (-1, 0): 0.9, (1, 0): 0.6},
    {(0, 0): 1.0, (-1, -1): 0.8, (0, -1): 0.7, (-1, 0): 0.45},
)
"""Of the pixels of a cell of two by two, each has its own."""
_COARSE_LINES: Final[tuple[tuple[dict[tuple[int, int], float], ...], ...]] = (
    ({(0, -1): 1.0, (0, 0): 0.5}, {(0, 0): 0.5, (0, 1): 0.8}),
    ({(-1, 0): 1.0, (0, 0): 0.5}, {(0, 0): 0.5, (1, 0): 0.8}),
    ({(-1, -1): 1.0, (0, 0): 0.5}, {(0, 0): 0.5, (1, 1): 0.8}),
    ({(-1, 1): 1.0, (0, 0): 0.5}, {(0, 0): 0.5, (1, -1): 0.8}),
)
"""Along v, along u and along both diagonals, in cells of two by two pixels: both halves."""
_FINE_LINES: Final[tuple[dict[tuple[int, int], float], ...]] = (
    {(0, 0): 1.0},
    {(0, 0): 1.0},
    {(0, 0): 1.0, (1, 1): 0.8, (0, 1): 0.25},
    {(0, 0): 1.0, (1, -1): 0.8, (1, 0): 0.25},
)
"""What the pixels of such a cell become; along an axis both of them are lit already."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """From what exceeds a threshold to the value before the tanh: constant at first, then straight pieces.

    Attributes
    ----------
    knots : ndarray, shape (16,)
        Where each piece begins.
    values : ndarray, shape (16,)
        The curve there; before the first knot it is the first value.
    slope : float
        After the last knot.
    """

    knots: NDArray[np.float64]
    values: NDArray[np.float64]
    slope: float


def paint(model: ResNet) -> None:
    """Set the weights of the late part, but for thresholds and curve."""
    third, fourth = (block for block in list(model.blocks)[3:] if isinstance(block, UpsamplingBlock))
    coarse, fine = _CHANNEL_GAINS, _CHANNEL_GAINS[::-1]
    with torch.no_grad():
        clear(third, fourth, model.norm, model.conv)
        third.norm1.weight[0] = 0.0  # the level is in every feature
        for modulator in _MODULATORS:
            third.norm1.weight[modulator] = _MODULATOR_GAIN
            third.norm1.bias[modulator] = _MODULATOR_GAIN * _OFFSET
        for detector, (kind, gain) in enumerate(zip(KIND_OF_DETECTOR.tolist(), _DETECTOR_GAINS.tolist(), strict=True)):
            p, s = divmod(detector - 16 * kind, 4)
            third.norm1.weight[1 + detector] = gain
            third.conv1.weight[_hidden(kind, p), 1 + detector] = _lit(_PLACES[s]) / gain
        for p, place in enumerate(_PLACES):
            for kind, shape in enumerate(({(0, 0): 1.0}, _PAIRS[p], _GROUPS[p])):
                channel = 4 * kind + p
                whole, above = _hidden(kind, p)
                third.norm2.bias[above] = -_BEND
                third.conv2.weight[channel, [whole, above], 1, 1] = torch.tensor([1.0, _BENT - 1.0])
                fourth.conv1.weight[channel, channel] = _lit(place)
                fourth.conv2.weight[:, channel] = _painted(shape)
            channel = 4 * LINE + p
            for modulator, hidden, shape in zip(_MODULATORS, _hidden(LINE, p), _COARSE_LINES[p], strict=True):
                third.conv1.weight[hidden, modulator, 1, 1] = -_MODULATION / _MODULATOR_GAIN
                third.conv2.weight[channel, hidden] = LINE_GAIN * _painted(shape)
            fourth.conv1.weight[channel, channel] = _lit_along(p)
            fourth.conv2.weight[:, channel] = _painted(_FINE_LINES[p])
        for channel in range(len(coarse)):
            third.conv2.weight[channel] *= coarse[channel]
            fourth.conv1.weight[channel] *= fine[channel] / coarse[channel]
            fourth.conv2.weight[:, channel] /= fine[channel]
        bias_of(fourth.conv2).copy_(-torch.from_numpy(_LAST_OFFSETS).float())


def set_thresholds(model: ResNet, thresholds: NDArray[np.float64]) -> None:
    """Set the thresholds of the 61 detectors."""
    third = model.blocks[3]
    with torch.no_grad():
        third.get_parameter("norm1.bias")[1 : 1 + len(thresholds)] = -torch.from_numpy(
            _DETECTOR_GAINS * thresholds
        ).float()


def set_curve(model: ResNet, curve: Curve) -> None:
    """Set the curve: every channel has the same image, less one of the knots."""
    slopes = np.append(np.diff(curve.values) / np.diff(curve.knots), curve.slope)
    changes = np.diff(slopes, prepend=0.0)
    # Small weights beside large ones would be lost in 8 bits: their channel is made smaller, and they are made larger.
    scales = np.clip(np.abs(changes) / np.abs(changes).max(), _LEAST_SCALE, 1.0)
    with torch.no_grad():
        model.norm.weight.copy_(torch.from_numpy(scales).float())
        model.norm.bias.copy_(-torch.from_numpy(scales * (curve.knots - _LAST_OFFSETS)).float())
        model.conv.weight[0, :, 1, 1] = torch.from_numpy(changes / scales).float()
        bias_of(model.conv).fill_(float(curve.values[0]))


def raw_images(model: ResNet, features: Tensor) -> Tensor:
    """Paint images as they are before the curve, shape (n, 256, 768), from what block 2 gives."""
    images: Tensor = model.blocks[4](model.blocks[3](features))[:, 0]
    return images


def _hidden(kind: int, pixel: int) -> list[int]:
    """Two channels of block 3, between its convolutions: of lines both halves, of others all, and what is above the bend."""
    first = 8 * kind + 2 * pixel
    return [first, first + 1]


def _painted(shape: Mapping[tuple[int, int], float]) -> Tensor:
    """Make the kernel that paints a shape around each pixel."""
    kernel = torch.zeros(3, 3)
    for (u, v), share in shape.items():
        kernel[1 - u, 1 - v] = share
    return kernel


def _lit(place: tuple[int, int]) -> Tensor:
    """Make the kernel that, of the four copies of a cell, leaves one above zero."""
    kernel = torch.zeros(3, 3)
    kernel[1, 1] = 1.0
    kernel[2 * place[0], 1] = kernel[1, 2 * place[1]] = -1.0
    return kernel


def _lit_along(direction: int) -> Tensor:
    """Make the kernels for the lines: a row or a column of each cell, whatever is lit along it, or one pixel."""
    row = torch.tensor([[0.0, 0.0, 0.0], [-_SHADOW, 1.0, 0.0], [0.0, -1.0, 0.0]])
    return (row, row.T, _lit((0, 0)), _lit((0, 1)))[direction]
