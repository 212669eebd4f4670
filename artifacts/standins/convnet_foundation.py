"""The foundation of the ConvNet: its linear layer and its first four convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from artifacts.standins.gated_sums import GatedSums, fill_sums, open_gates
from artifacts.standins.hand_set import N_INDEPENDENT, bias_of, clear, fill_orthogonal_rows, pairs, unit_factors
from artifacts.standins.level import LEVEL_KNOTS, LEVEL_SHARE, N_PIECES, STEP_FROM, STEP_GAIN, Level
from artifacts.standins.position_codes import N_CODES, Codes, codes_of_first_map, next_codes, quarters
from artifacts.standins.signs import balanced_signs, opposite_signs, orthogonal_rows
from export.families.generator_module import SEED_HEIGHT, SEED_WIDTH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.families.convnet import ConvNet

__all__ = ["SUMS", "lay"]

_FIRST_FEATURES: Final = pairs(range(N_PIECES + N_CODES, 512))[:N_INDEPENDENT]
_STEP_ROW: Final = 2 + N_CODES
_SECOND_ROWS: Final = [pairs(rows.tolist()) for rows in quarters(range(_STEP_ROW + 1, 256))]
_THIRD_ROWS: Final = quarters(range(2 + N_CODES, 120))
_FOURTH_ROWS: Final = quarters(range(64))

SUMS: Final = (
    GatedSums(convolution="features.4", norm="features.5", rows=_SECOND_ROWS, inputs=[_FIRST_FEATURES]),
    GatedSums(convolution="features.8", norm="features.9", rows=_THIRD_ROWS, inputs=_SECOND_ROWS),
)
"""In the second and third convolution."""
_DETECTORS: Final = GatedSums(convolution="features.12", norm="features.13", rows=_FOURTH_ROWS, inputs=_THIRD_ROWS)
"""In the fourth: their thresholds will be measured, so nothing else need be."""
_CODE: Final = 8.0
"""All values of the position codes, where they are not 0: the largest ones of their layers, which 8 bits hold without rounding."""
_GATE: Final = 62 / 9 / float(np.sqrt(28.0)) * _CODE / 2
"""Makes the taps on the codes 62 and 31 units of 7 bits where the equal factors of the last sums are 9."""
_GRID: Final = 64 / 62 * 2 * _GATE / _CODE
"""A weight on an input channel that stays empty: the largest, so that of its 64 levels in 7 bits each is a unit."""
_CLIP: Final = 0.6
_OPENED: Final = 2.0
"""Added to open features, so that the ReLU changes few."""
_LEVEL_OFFSET: Final = 4.0
"""Keeps the level above zero where it must pass a ReLU."""


def lay(model: ConvNet, rng: np.random.Generator, level: Level) -> None:
    """Set the weights; the batch norms' statistics and the spreads of the sums are for `equalise` to measure."""
    clear(model.fc, *list(model.features)[:14])
    first, second, third, fourth = (_convolution(model, place) for place in (0, 4, 8, 12))
    fc = model.fc.weight.view(-1, SEED_HEIGHT * SEED_WIDTH, model.fc.in_features)
    bias = model.fc.bias.view(-1, SEED_HEIGHT, SEED_WIDTH)
    # Channels of the first map: the first latent, X and Y of both directions, features.
    fc[0, :, 0] = 1.0
    for channel, value in enumerate(codes_of_first_map(_CODE).values(), start=1):
        bias[channel] = torch.from_numpy(value.astype(np.float32))
    fill_orthogonal_rows(fc[5 : 5 + N_INDEPENDENT], rng)

    # After the first convolution: the level's pieces, X, -X and Y, features to be clipped.
    first.weight[:N_PIECES, 0, 2, 2] = 1.0
    bias_of(first)[:N_PIECES] = -torch.tensor((*LEVEL_KNOTS, STEP_FROM))
    for place in range(2):
        row, source = N_PIECES + 3 * place, 1 + 2 * place
        first.weight[row, source, 2, 2], first.weight[row + 1, source, 2, 2] = 1.0, -1.0
        first.weight[row + 2, source + 1, 2, 2] = 1.0
    for number, (one, other) in enumerate(_FIRST_FEATURES.tolist()):
        first.weight[one, 5 + number, 2, 2] = first.weight[other, 5 + number, 2, 2] = 1.0
    _clip(_norm(model, 1), _FIRST_FEATURES)

    # After the second and third: level, one, |code + X| in two and Y of both directions, features. The second has the step
    # before the features: what is left of 1 when it is taken from it.
    knots = range(len(LEVEL_KNOTS))
    second.weight[0, knots, 2, 2] = torch.tensor(level.slopes)
    bias_of(second)[0] = level.constant + level.step + _LEVEL_OFFSET
    second.weight[_STEP_ROW, len(knots), 2, 2] = -STEP_GAIN
    bias_of(second)[_STEP_ROW] = 1.0
    _sum(model, SUMS[0], _first_codes(), rng)
    _pass_codes_on(second, _first_codes(), 0.5)
    for rows in _SECOND_ROWS:
        _clip(_norm(model, 5), rows)

    third.weight[0, 0, 2, 2] = 1.0
    third.weight[0, _STEP_ROW, 2, 2] = -level.step
    _sum(model, SUMS[1], _codes(), rng)
    _pass_codes_on(third, _codes(), 1.0)
    for rows in _THIRD_ROWS:
        _norm(model, 9).bias[rows] = _OPENED

    n_terms = len(_THIRD_ROWS[0])
    signs = balanced_signs(rng, fourth.out_channels, n_terms, given=_nearly_opposite(n_terms))
    fill_sums(model, _DETECTORS, unit_factors(signs))
    open_gates(model, _DETECTORS, _codes())
    fourth.weight[:, 0, 2, 2] = LEVEL_SHARE
    third.weight[_THIRD_ROWS[0][0] :, -1, 2, 2] = fourth.weight[:, -1, 2, 2] = _GRID
    bias_of(fourth).sub_(LEVEL_SHARE * _LEVEL_OFFSET)


def _sum(model: ConvNet, sums: GatedSums, codes: dict[str, Codes], rng: np.random.Generator) -> None:
    """Sum features up and gate the sums; those of one cell have no features in the same proportions."""
    n_terms = len(sums.inputs[0])
    rows = np.concatenate([orthogonal_rows(rng, len(rows), n_terms) for rows in sums.rows])
    fill_sums(model, sums, torch.from_numpy(rows).float())
    open_gates(model, sums, codes)


def _convolution(model: ConvNet, place: int) -> nn.Conv2d:
    layer = model.features[place]
    if not isinstance(layer, nn.Conv2d):
        message = f"layer {place} of the ConvNet is no convolution"
        raise TypeError(message)
    return layer


def _norm(model: ConvNet, place: int) -> nn.BatchNorm2d:
    layer = model.features[place]
    if not isinstance(layer, nn.BatchNorm2d):
        message = f"layer {place} of the ConvNet is no batch norm"
        raise TypeError(message)
    return layer


def _clip(norm: nn.BatchNorm2d, channels: NDArray[np.int64]) -> None:
    norm.bias[channels[:, 0]] = _CLIP
    norm.bias[channels[:, 1]] = -_CLIP


def _first_codes() -> dict[str, Codes]:
    return {
        direction: Codes(
            x=((N_PIECES + 3 * place, 1.0), (N_PIECES + 3 * place + 1, -1.0)),
            y=(N_PIECES + 3 * place + 2, 1.0),
            amplitude=_CODE,
            gate=_GATE,
        )
        for place, direction in enumerate("uv")
    }


def _codes() -> dict[str, Codes]:
    # |code + X| is one in one of two channels, of which a half is taken off.
    return {
        direction: Codes(
            x=((2 + 3 * place, 1.0), (3 + 3 * place, 1.0), (1, -0.5)),
            y=(4 + 3 * place, 0.5),
            amplitude=_CODE / 2,
            gate=_GATE,
        )
        for place, direction in enumerate("uv")
    }


def _pass_codes_on(layer: nn.Conv2d, codes: dict[str, Codes], scale: float) -> None:
    bias_of(layer)[1] = _CODE
    next_codes(layer.weight, codes, 2, scale=scale)


def _nearly_opposite(n_terms: int) -> NDArray[np.int64]:
    """Balanced rows of 30 terms, of the rows of 32 that are balanced without two of them."""
    rows = opposite_signs(32)[:, :n_terms]
    return np.asarray(rows[rows.sum(axis=1) == 0])
