"""The foundation of the ResNet: its linear layer and its first three blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from artifacts.standins.gated_sums import GatedSums, fill_sums, open_gates
from artifacts.standins.hand_set import N_INDEPENDENT, bias_of, clear, fill_orthogonal_rows, pairs, sum_up, unit_factors
from artifacts.standins.level import LEVEL_KNOTS, LEVEL_SHARE, N_PIECES, STEP_FROM, STEP_GAIN, Level
from artifacts.standins.position_codes import N_CODES, Codes, codes_of_first_map, next_codes, quarters
from artifacts.standins.signs import balanced_signs, opposite_signs, orthogonal_rows
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.families.resnet import ResNet, UpsamplingBlock

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SUMS", "lay"]

_FIRST_FEATURES: Final = pairs(range(N_PIECES + N_CODES, 256))[:N_INDEPENDENT]
_FIRST_ROWS: Final = quarters(range(N_PIECES + N_CODES, 256))
_SECOND_FEATURES: Final = pairs(range(1 + N_CODES, 256))
_SECOND_ROWS: Final = quarters(range(N_CODES, 128))
_THIRD_FEATURES: Final = pairs(range(1 + N_CODES, 128))
_THIRD_ROWS: Final = quarters(range(64))

SUMS: Final = (
    GatedSums(convolution="blocks.0.conv1", norm="blocks.0.norm2", rows=_FIRST_ROWS, inputs=[_FIRST_FEATURES]),
    GatedSums(convolution="blocks.1.conv1", norm="blocks.1.norm2", rows=_SECOND_ROWS, inputs=[_SECOND_FEATURES]),
    GatedSums(convolution="blocks.2.conv1", norm="blocks.2.norm2", rows=_THIRD_ROWS, inputs=[_THIRD_FEATURES]),
)
"""One in each block, between its two convolutions."""
_AMPLITUDE: Final = float(np.sqrt(7.0))
"""Of the position codes: the taps on them are the largest weights, and 8 bits must tell the others apart beside them."""
_GATE: Final = 3.5
_CLIP: Final = 0.6
_OPENED: Final = 2.5
"""Added to open features, so that the ReLU changes few: what it cuts off narrows their sums. In 8 bits the codes are rounded, and
open features are 0.1 lower in some cells than in others: with 2 there, those cells had 5 % fewer hits."""
_LEVEL_STEP: Final = 0.05
"""About a step in 8 bits. A fraction of it is added to the level, another to each feature: all features rounded alike
would make every image's level a multiple of it, and its occupancy up to a tenth too high or low."""


def lay(model: ResNet, rng: np.random.Generator, level: Level) -> None:
    """Set the weights; the sums are as yet neither of variance 1 nor uncorrelated, see `equalise`."""
    blocks = [block for block in model.blocks if isinstance(block, UpsamplingBlock)][: len(SUMS)]
    clear(model.fc, *blocks)
    fc = model.fc.weight.view(-1, SEED_HEIGHT * SEED_WIDTH, model.fc.in_features)
    bias = model.fc.bias.view(-1, SEED_HEIGHT, SEED_WIDTH)
    # Channels of the first map: level, X, -X and Y of both directions, features.
    fc[:N_PIECES, :, 0] = 1.0
    blocks[0].norm1.bias[:N_PIECES] = -torch.tensor((*LEVEL_KNOTS, STEP_FROM))
    values = codes_of_first_map(_AMPLITUDE)
    for place, direction in enumerate("uv"):
        row = N_PIECES + 3 * place
        for offset, value in enumerate((values["x" + direction], -values["x" + direction], values["y" + direction])):
            bias[row + offset] = torch.from_numpy(value.astype(np.float32))
    fill_orthogonal_rows(fc[_FIRST_FEATURES[0, 0] : _FIRST_FEATURES[-1, 1] : 2], rng)
    fc[_FIRST_FEATURES[:, 1]] = fc[_FIRST_FEATURES[:, 0]]

    _hide(model, blocks[0], SUMS[0], _codes(N_PIECES), rng)
    next_codes(blocks[0].conv1.weight, _codes(N_PIECES), N_PIECES)
    for piece, slope in enumerate((*level.slopes, -level.step)):
        blocks[0].conv1.weight[piece, piece, 1, 1] = 1.0
        blocks[0].conv2.weight[0, piece, 1, 1] = slope
    # What is left of 1 when the step is taken from it.
    blocks[0].conv1.weight[N_PIECES - 1, N_PIECES - 1, 1, 1] = -STEP_GAIN
    bias_of(blocks[0].conv1)[N_PIECES - 1] = 1.0
    bias_of(blocks[0].conv2)[0] = level.constant + level.step
    _show(blocks[0], SUMS[0], _SECOND_FEATURES, N_PIECES, rng)

    # From here on channel 0 is the level, 1 to 6 are the codes.
    _hide(model, blocks[1], SUMS[1], _codes(1), rng)
    next_codes(blocks[1].conv1.weight, _codes(1), 0)
    _show(blocks[1], SUMS[1], _THIRD_FEATURES, 0, rng)
    blocks[1].conv.weight[0, 0] = 1.0

    _hide(model, blocks[2], SUMS[2], _codes(1), rng)
    n_terms = len(_THIRD_ROWS[0])
    rows = range(1, blocks[2].conv2.out_channels)
    signs = balanced_signs(rng, len(rows), n_terms, given=opposite_signs(n_terms))
    for row, factors in zip(rows, unit_factors(signs), strict=True):
        sum_up(blocks[2].conv2.weight, row, factors, _THIRD_ROWS)
    blocks[2].conv.weight[0, 0] = 1.0
    blocks[2].conv.weight[1:, 0] = LEVEL_SHARE
    n_features = blocks[2].conv.out_channels - 1
    bias_of(blocks[2].conv)[1:] = _LEVEL_STEP * torch.arange(n_features) / n_features


def _codes(first: int) -> dict[str, Codes]:
    return {
        direction: Codes(
            x=((first + 3 * place, 1.0), (first + 3 * place + 1, -1.0)),
            y=(first + 3 * place + 2, 1.0),
            amplitude=_AMPLITUDE,
            gate=_GATE,
        )
        for place, direction in enumerate("uv")
    }


def _hide(
    model: ResNet, block: UpsamplingBlock, sums: GatedSums, codes: dict[str, Codes], rng: np.random.Generator
) -> None:
    """First convolution of a block: clipped features are summed up, and the sums are gated."""
    features = sums.inputs[0]
    block.norm1.bias[features[:, 0]] = _CLIP
    block.norm1.bias[features[:, 1]] = -_CLIP
    n_sums = sum(len(rows) for rows in sums.rows)
    fill_sums(model, sums, torch.from_numpy(orthogonal_rows(rng, n_sums, len(features))).float())
    open_gates(model, sums, codes)
    for rows in sums.rows:
        block.norm2.bias[rows] = _OPENED


def _show(
    block: UpsamplingBlock, sums: GatedSums, features: NDArray[np.int64], code_rows: int, rng: np.random.Generator
) -> None:
    """Second convolution of a block: the next codes in channels 1 to 6, features to be clipped in those after them."""
    for place in range(2):
        row, source = 1 + 3 * place, code_rows + 3 * place
        for offset, sign in ((0, 1.0), (1, -1.0)):
            block.conv2.weight[row + offset, [source, source + 1], 1, 1] = sign
            bias_of(block.conv2)[row + offset] = -sign * _AMPLITUDE
        block.conv2.weight[row + 2, source + 2, 1, 1] = 1.0
    signs = balanced_signs(rng, len(features), len(sums.rows[0]))
    for (one, other), factors in zip(features.tolist(), unit_factors(signs), strict=True):
        sum_up(block.conv2.weight, one, factors, sums.rows)
        block.conv2.weight[other] = block.conv2.weight[one]
