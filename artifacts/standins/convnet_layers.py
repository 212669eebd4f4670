"""The early part of the ConvNet: the linear layer and the first four convolutions, `features.0`, `.4`, `.8` and `.12`.

The first convolution copies each feature to two channels, to be clipped. The other three form gated sums. After the
second and third convolution, channel 0 is the level, channel 1 is constant and channels 2 to 7 are the codes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from artifacts.standins.early_layers import (
    EarlyLayers,
    State,
    SumLayer,
    pair,
    split_by_phase,
    view_centre_taps,
    view_first_map,
)
from artifacts.standins.level import KNOTS, LEVEL_SHARE, N_PIECES, STEP_GAIN, Level
from artifacts.standins.position_codes import (
    N_CODE_CHANNELS,
    PositionCode,
    find_codes,
    list_first_codes,
    write_next_codes,
)
from artifacts.standins.white_noise import N_FEATURES
from export.families.convnet import ConvNet

__all__ = ["CONVNET"]

_AMPLITUDE: Final = 8.0
"""Of the position codes, and the constant: the largest values of their layers, which 8 bits hold without rounding."""
_GATE: Final = 62 / 9 / float(np.sqrt(28.0)) * _AMPLITUDE / 2
"""Makes the taps on the codes 62 and 31 units of 7 bits where the equal weights of the last sums are 9."""
_LARGEST_WEIGHT: Final = 64 / 62 * 2 * _GATE / _AMPLITUDE
"""Weight on an input that is zero. It sets the scale of 7-bit weights so that each of the 64 levels is a unit."""
_LIFT: Final = 2.0
_LEVEL_OFFSET: Final = 4.0
"""Keeps the level above the zero of the ReLU."""
_FIRST_CODES: Final = find_codes(N_PIECES, amplitude=_AMPLITUDE, gate=_GATE)
_CODES: Final = (
    # X is the sum of the two halves of |code + X|, less half of the constant in channel 1.
    PositionCode(step=(1, 0), x=((2, 1.0), (3, 1.0), (1, -0.5)), y=(4, 0.5), amplitude=_AMPLITUDE / 2, gate=_GATE),
    PositionCode(step=(0, 1), x=((5, 1.0), (6, 1.0), (1, -0.5)), y=(7, 0.5), amplitude=_AMPLITUDE / 2, gate=_GATE),
)
"""After the first convolution, and after the second and third."""
_FIRST_FEATURE: Final = 5
"""In the first map: latent 0, X and Y of both directions, features."""
_STEP: Final = 2 + N_CODE_CHANNELS
"""Channel of the step after the second convolution."""

_FIRST_FEATURES: Final = pair(range(N_PIECES + N_CODE_CHANNELS, 512))[:N_FEATURES]
_SECOND_SUMS: Final = tuple(pair(group) for group in split_by_phase(range(_STEP + 1, 256)))
_THIRD_SUMS: Final = split_by_phase(range(2 + N_CODE_CHANNELS, 120))
_FOURTH_SUMS: Final = split_by_phase(range(64))


def _connect(state: State, level: Level) -> None:
    _write_first_map(state)
    _write_first_convolution(state)
    _write_level(state, level)
    for convolution, codes, scale in (("features.4", _FIRST_CODES, 0.5), ("features.8", _CODES, 1.0)):
        state[f"{convolution}.bias"][1] = _AMPLITUDE
        write_next_codes(state[f"{convolution}.weight"], codes, 2, scale=scale)
    view_centre_taps(state, "features.8")[_THIRD_SUMS[0][0, 0] :, -1] = _LARGEST_WEIGHT
    view_centre_taps(state, "features.12")[:, -1] = _LARGEST_WEIGHT


def _write_first_map(state: State) -> None:
    weight, bias = view_first_map(state)
    weight[0, :, 0] = 1.0
    for channel, (x, y) in zip((1, 3), list_first_codes(_AMPLITUDE), strict=True):
        bias[channel], bias[channel + 1] = x, y


def _write_first_convolution(state: State) -> None:
    """Pieces of the level; X, -X and Y of both directions; each feature twice."""
    taps, bias = view_centre_taps(state, "features.0"), state["features.0.bias"]
    taps[:N_PIECES, 0] = 1.0
    bias[:N_PIECES] = -torch.tensor(KNOTS)
    for channel, source in ((N_PIECES, 1), (N_PIECES + 3, 3)):
        taps[channel, source] = taps[channel + 2, source + 1] = 1.0
        taps[channel + 1, source] = -1.0
    for channels in _FIRST_FEATURES.T:
        taps[channels, range(_FIRST_FEATURE, _FIRST_FEATURE + N_FEATURES)] = 1.0


def _write_level(state: State, level: Level) -> None:
    second, third, fourth = (view_centre_taps(state, f"features.{place}") for place in (4, 8, 12))
    # The step is 1 - ReLU(1 - gain * piece); its 1 goes into the constant.
    second[_STEP, N_PIECES - 1] = -STEP_GAIN
    state["features.4.bias"][_STEP] = 1.0
    second[0, : N_PIECES - 1] = torch.tensor(level.slopes)
    state["features.4.bias"][0] = level.constant + level.step + _LEVEL_OFFSET
    third[0, 0] = 1.0
    third[0, _STEP] = -level.step
    fourth[:, 0] = LEVEL_SHARE
    state["features.12.bias"].sub_(LEVEL_SHARE * _LEVEL_OFFSET)


CONVNET: Final = EarlyLayers(
    module=ConvNet,
    features=np.arange(_FIRST_FEATURE, _FIRST_FEATURE + N_FEATURES)[:, None],
    lift=_LIFT,
    sums=(
        SumLayer(
            convolution="features.4",
            norm="features.1",
            inputs=(_FIRST_FEATURES,),
            outputs=_SECOND_SUMS,
            codes=_FIRST_CODES,
            n_rotations=4,
        ),
        SumLayer(
            convolution="features.8",
            norm="features.5",
            inputs=_SECOND_SUMS,
            outputs=_THIRD_SUMS,
            codes=_CODES,
            n_rotations=4,
        ),
        SumLayer(
            convolution="features.12",
            norm="features.9",
            inputs=_THIRD_SUMS,
            outputs=_FOURTH_SUMS,
            codes=_CODES,
            begins_with_opposite_signs=True,
        ),
    ),
    connect=_connect,
)
