"""The early part of the ResNet: the linear layer and the blocks 0 to 2.

Within a block, the first convolution forms gated sums of clipped features, the second one forms sums of those. After
block 0, channel 0 is the level, which the shortcuts pass on, and channels 1 to 6 are the codes.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from artifacts.standins.early_layers import (
    Channels,
    EarlyLayers,
    State,
    SumLayer,
    pair,
    split_by_phase,
    view_centre_taps,
    view_first_map,
)
from artifacts.standins.level import KNOTS, LEVEL_SHARE, N_PIECES, STEP_GAIN, Level
from artifacts.standins.position_codes import N_CODE_CHANNELS, find_codes, list_first_codes, write_next_codes
from artifacts.standins.white_noise import N_FEATURES
from export.families.resnet import ResNet

__all__ = ["RESNET"]

_AMPLITUDE: Final = float(np.sqrt(7.0))
"""Of the position codes. Their taps are the largest weights; with this value 8 bits still resolve the others."""
_GATE: Final = 3.5
_LIFT: Final = 2.5
"""8 bits round the codes, which lowers open features by 0.1 in some cells. With a lift of 2 they had 5 % fewer hits."""
_LEVEL_STEP: Final = 0.05
"""About one level of 8 bits. Each feature gets another fraction of it: if all were rounded alike, the level of an image
would be a multiple of it, and its occupancy up to a tenth too high or too low."""
_CODES: Final = tuple(find_codes(first, amplitude=_AMPLITUDE, gate=_GATE) for first in (N_PIECES, 1, 1))
"""In the input of each block."""
_INNER_CODES: Final = (N_PIECES, 0)
"""First channel of the codes between the convolutions of blocks 0 and 1."""


def _list_block(
    block: int, features: Channels, sums: range, outputs: Channels, n_rotations: int
) -> tuple[SumLayer, SumLayer]:
    by_phase = split_by_phase(sums)
    return (
        SumLayer(
            convolution=f"blocks.{block}.conv1",
            norm=f"blocks.{block}.norm1",
            inputs=(features,),
            outputs=by_phase,
            codes=_CODES[block],
            n_rotations=n_rotations,
        ),
        SumLayer(
            convolution=f"blocks.{block}.conv2",
            norm=f"blocks.{block}.norm2",
            inputs=by_phase,
            outputs=(outputs,),
            begins_with_opposite_signs=block == 2,
        ),
    )


def _connect(state: State, level: Level) -> None:
    _write_first_map(state)
    _write_level(state, level)
    for block, source in enumerate(_INNER_CODES):
        write_next_codes(state[f"blocks.{block}.conv1.weight"], _CODES[block], source)
        taps, bias = view_centre_taps(state, f"blocks.{block}.conv2"), state[f"blocks.{block}.conv2.bias"]
        for channel, halves in ((1, source), (4, source + 3)):
            for row, sign in ((channel, 1.0), (channel + 1, -1.0)):
                taps[row, halves : halves + 2] = sign
                bias[row] = -sign * _AMPLITUDE
            taps[channel + 2, halves + 2] = 1.0


def _write_first_map(state: State) -> None:
    """Latent 0 in a channel for each piece of the level; X, -X and Y of both codes."""
    weight, bias = view_first_map(state)
    weight[:N_PIECES, :, 0] = 1.0
    for channel, (x, y) in zip((N_PIECES, N_PIECES + 3), list_first_codes(_AMPLITUDE), strict=True):
        for row, values in enumerate((x, -x, y), start=channel):
            bias[row] = values


def _write_level(state: State, level: Level) -> None:
    state["blocks.0.norm1.bias"][:N_PIECES] = -torch.tensor(KNOTS)
    pieces, step = range(N_PIECES), N_PIECES - 1
    view_centre_taps(state, "blocks.0.conv1")[pieces, pieces] = 1.0
    # 1 - ReLU(1 - gain * piece) is the step; its 1 goes into the constant.
    view_centre_taps(state, "blocks.0.conv1")[step, step] = -STEP_GAIN
    state["blocks.0.conv1.bias"][step] = 1.0
    view_centre_taps(state, "blocks.0.conv2")[0, pieces] = torch.tensor((*level.slopes, -level.step))
    state["blocks.0.conv2.bias"][0] = level.constant + level.step
    for block in (1, 2):
        view_centre_taps(state, f"blocks.{block}.conv")[0, 0] = 1.0
    view_centre_taps(state, "blocks.2.conv")[1:, 0] = LEVEL_SHARE
    n_features = len(state["blocks.2.conv.bias"]) - 1
    state["blocks.2.conv.bias"][1:] = _LEVEL_STEP * torch.arange(n_features) / n_features


_FEATURES: Final = (
    pair(range(N_PIECES + N_CODE_CHANNELS, 256))[:N_FEATURES],
    pair(range(1 + N_CODE_CHANNELS, 256)),
    pair(range(1 + N_CODE_CHANNELS, 128)),
    np.arange(1, 64)[:, None],
)
"""In the input of each block, and in the output of block 2."""

RESNET: Final = EarlyLayers(
    module=ResNet,
    features=_FEATURES[0],
    lift=_LIFT,
    sums=(
        *_list_block(0, _FEATURES[0], range(N_PIECES + N_CODE_CHANNELS, 256), _FEATURES[1], n_rotations=3),
        *_list_block(1, _FEATURES[1], range(N_CODE_CHANNELS, 128), _FEATURES[2], n_rotations=1),
        *_list_block(2, _FEATURES[2], range(64), _FEATURES[3], n_rotations=2),
    ),
    connect=_connect,
)
