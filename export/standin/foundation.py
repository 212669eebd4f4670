"""The part of a stand-in that is not trained: random features for every cell of four by four pixels, good by construction.

Weights drawn at random and left at that do not make background: where an image is enlarged, the copies show as seams;
where a convolution meets the border, its features are weaker; and hits come at the same places in every image.
Here every cell of a feature map gets features of the same distribution, whatever its place:

- Each of the four cells that come of one is told by position codes which of the features of the old cell are its own: of the
  channels of a layer a quarter are open in it, the others far below the zero of the ReLU. Noise passes through centre
  taps alone, so neither neighbours nor the border have a part in it.
- A position code is two channels of constants. With X[j] = (-1)^(j+1) and Y = (1, 0, 0, …), a tap to the left on X and
  one to the right on Y make X[j-1] + Y[j] in the first and X[j] + Y[j+1] in the second of the cells that come of cell j: they
  are +-1 and opposite, at the borders too, where the padding is zero.
- One latent is kept for the level of the whole image: a piecewise linear function of it, the same in every cell, is added
  to all features, so that more or fewer of them exceed a threshold.

All weights are small multiples of one number a layer and chosen with integers, so that they are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from export.models import LATENT_SIZE
from export.models.convnet import ConvNet
from export.models.generator_module import SEED_HEIGHT, SEED_WIDTH
from export.models.resnet import ResNet, UpsamplingBlock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from export.models import GeneratorModule

__all__ = [
    "CONVNET_GATED_FROM",
    "LEVEL_KNOTS",
    "LEVEL_SHARE",
    "N_DETECTORS",
    "PHASES",
    "RESNET_FEATURES_FROM",
    "RESNET_GATED_FROM",
    "Level",
    "lay_foundation",
    "quarters",
]

LEVEL_KNOTS: Final = tuple(float(knot) for knot in np.linspace(-2.4, 2.4, 17))
"""Values of the first latent at which the level's slope may change."""
LEVEL_SHARE: Final = 0.25
"""How much of the level is added to every feature, whose variance is 1."""
N_DETECTORS: Final = 16
"""Features of a cell of the ConvNet: a quarter of its 64 channels."""

PHASES: Final = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Signs of the two position codes, along u and v, in the four cells that come of one."""
_N_CODES: Final = 6
"""Channels of the codes: three for each of two directions."""
RESNET_GATED_FROM: Final = (len(LEVEL_KNOTS) + _N_CODES, _N_CODES, 0)
"""First gated channel between the two convolutions of each of the ResNet's first three blocks."""
RESNET_FEATURES_FROM: Final = (1 + _N_CODES, 1 + _N_CODES, 1)
"""First channel of the features after each of these blocks: level and codes come first, in the end the level alone."""
CONVNET_GATED_FROM: Final = (len(LEVEL_KNOTS) + _N_CODES, 2 + _N_CODES, 2 + _N_CODES, 0)
"""First channel of the features after each of the ConvNet's first four convolutions; those of the first are not gated."""
_GATE: Final = 6.0
_LATENTS_A_FEATURE: Final = 16
_FEWEST_TERMS: Final = 4
_VARIANCE_OF_RELU: Final = 0.5 - 0.5 / np.pi
"""Of max(x, 0) for a standard normal x."""
_LEVEL_OFFSET: Final = 4.0
"""Keeps the level above zero where it must pass a ReLU."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """The level of an image: a piecewise linear function of its first latent.

    Attributes
    ----------
    constant : float
        Below the first of `LEVEL_KNOTS`.
    slopes : tuple of float
        By how much the slope changes at each of them.
    """

    constant: float
    slopes: tuple[float, ...]

    @classmethod
    def through(cls, values: NDArray[np.float64]) -> Level:
        """Make the level that has given values at the knots."""
        slopes = np.diff(values) / np.diff(LEVEL_KNOTS)
        changes = np.diff(np.concatenate([[0.0], slopes, [0.0]]))
        return cls(constant=float(values[0]), slopes=tuple(float(change) for change in changes))

    def __call__(self, latent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate it."""
        above = np.maximum(np.asarray(latent)[..., None] - np.asarray(LEVEL_KNOTS), 0.0)
        return np.asarray(self.constant + above @ np.asarray(self.slopes))


def lay_foundation(family: str, seed: int, level: Level) -> GeneratorModule:
    """Make a model whose early part is laid and whose late part is as PyTorch made it.

    Parameters
    ----------
    family : {"convnet", "resnet"}
    seed : int
        Of the weights.
    level : Level

    Returns
    -------
    GeneratorModule
        In inference mode. The ResNet's `blocks.0` to `.2` are laid, or the ConvNet's `features.0` to `.13`.
    """
    rng = np.random.default_rng(seed)
    model = ResNet() if family == "resnet" else ConvNet()
    with torch.no_grad():
        if isinstance(model, ResNet):
            _lay_resnet(model, rng, level)
        else:
            _lay_convnet(model, rng, level)
    return model.eval()


def _clear(*modules: nn.Module) -> None:
    """Zero weights and biases; batch norms become the identity."""
    for module in (part for whole in modules for part in whole.modules()):
        for parameter in module.parameters(recurse=False):
            parameter.zero_()
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_var is not None:
            module.weight.fill_(1.0)
            module.running_var.fill_(1.0 - module.eps)  # which the batch norm adds


def _bias(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        message = "the convolutions of the generators have biases"
        raise ValueError(message)
    return layer.bias


def _fill_rows(weight: Tensor, rows: Iterable[int], rng: np.random.Generator) -> None:
    """Make unit rows of a few equal weights; the first latent is the level's."""
    latents = np.arange(1, LATENT_SIZE)
    size = _LATENTS_A_FEATURE**-0.5
    for row in rows:
        chosen = torch.from_numpy(rng.permutation(latents)[:_LATENTS_A_FEATURE])
        signs = torch.from_numpy(rng.integers(0, 2, _LATENTS_A_FEATURE) * 2.0 - 1.0)
        weight[row, chosen] = (signs * size).float()


def _codes_of_first_map() -> dict[str, NDArray[np.float64]]:
    """X and Y along u and v, each of shape (8, 24)."""
    codes = {}
    for direction, axis in (("u", 0), ("v", 1)):
        n_cells = (SEED_HEIGHT, SEED_WIDTH)[axis]
        x = np.where(np.arange(n_cells) % 2 == 0, -1.0, 1.0)
        y = np.where(np.arange(n_cells) == 0, 1.0, 0.0)
        shape = (n_cells, 1) if axis == 0 else (1, n_cells)
        codes["x" + direction] = np.broadcast_to(x.reshape(shape), (SEED_HEIGHT, SEED_WIDTH))
        codes["y" + direction] = np.broadcast_to(y.reshape(shape), (SEED_HEIGHT, SEED_WIDTH))
    return codes


@dataclass(frozen=True, kw_only=True)
class _Codes:
    """How a layer finds the codes of one direction among its inputs: (channel, factor) whose sum is X, and the channel Y."""

    x: tuple[tuple[int, float], ...]
    y: int


def _add_taps(weight: Tensor, codes: dict[str, _Codes], direction: str, factor: float, *, centre: float = 0.0) -> None:
    """Add factor times (position code + centre X) to a filter, shape (in, k, k), that follows an enlargement."""
    middle = weight.shape[-1] // 2
    step = (1, 0) if direction == "u" else (0, 1)
    for channel, sign in codes[direction].x:
        weight[channel, middle - step[0], middle - step[1]] += factor * sign
        weight[channel, middle, middle] += factor * sign * centre
    weight[codes[direction].y, middle + step[0], middle + step[1]] += factor


def _gate(weight: Tensor, bias: Tensor, codes: dict[str, _Codes], phase: tuple[int, int]) -> None:
    """Open a channel in one of four cells: elsewhere it is at least 2 _GATE lower."""
    for direction, sign in zip("uv", phase, strict=True):
        _add_taps(weight, codes, direction, sign * _GATE)
    bias -= 2 * _GATE


def _next_codes(weight: Tensor, codes: dict[str, _Codes], first: int) -> None:
    """Make |code + X| in two channels and the next Y in a third, for each direction; weight is (out, in, k, k)."""
    middle = weight.shape[-1] // 2
    for place, direction in enumerate("uv"):
        row = first + 3 * place
        _add_taps(weight[row], codes, direction, 1.0, centre=1.0)
        _add_taps(weight[row + 1], codes, direction, -1.0, centre=1.0)
        step = (1, 0) if direction == "u" else (0, 1)
        weight[row + 2, codes[direction].y, middle, middle] = 1.0
        weight[row + 2, codes[direction].y, middle - step[0], middle - step[1]] = -1.0


def _signs(n_terms: int) -> Tensor:
    """Half of them plus and half minus, so that what the inputs have in common cancels."""
    return torch.tensor([1.0] * (n_terms // 2) + [-1.0] * (n_terms // 2))


def _deal(
    weight: Tensor,
    rng: np.random.Generator,
    rows: NDArray[np.int64],
    groups: list[NDArray[np.int64]],
    variance: float,
) -> None:
    """Fill the centre taps of some filters, weight (out, in, k, k): each gets inputs that no other one has, if they suffice.

    From groups of inputs of which one is open, the same places of each are taken. The variance becomes 1.
    """
    middle = weight.shape[-1] // 2
    n_terms = max(len(groups[0]) // len(rows) // 2 * 2, _FEWEST_TERMS)
    n_rounds = -(-n_terms * len(rows) // len(groups[0]))
    places = np.concatenate([rng.permutation(len(groups[0])) for _ in range(n_rounds)])
    for number, row in enumerate(rows):
        chosen = places[number * n_terms : (number + 1) * n_terms]
        for group in groups:
            weight[row, group[chosen], middle, middle] = _signs(n_terms) * (n_terms * variance) ** -0.5


def _mix(
    weight: Tensor, rng: np.random.Generator, groups: list[NDArray[np.int64]], n_terms: int, variance: float
) -> None:
    """Fill the centre taps of one filter, weight (in, k, k), from the same places of groups of which one is open."""
    middle = weight.shape[-1] // 2
    chosen = rng.permutation(len(groups[0]))[:n_terms]
    for group in groups:
        weight[group[chosen], middle, middle] = _signs(n_terms) * (n_terms * variance) ** -0.5


def quarters(channels: range) -> list[NDArray[np.int64]]:
    """Split channels into those that are open in each of the four phases; what is left over stays shut."""
    size = len(channels) // 4
    return [np.arange(channels.start + k * size, channels.start + (k + 1) * size) for k in range(4)]


def _lay_resnet(model: ResNet, rng: np.random.Generator, level: Level) -> None:
    blocks = [block for block in model.blocks if isinstance(block, UpsamplingBlock)]
    _clear(model.fc, *blocks[:3])
    n_knots = len(LEVEL_KNOTS)
    fc = model.fc.weight.view(-1, SEED_HEIGHT * SEED_WIDTH, LATENT_SIZE)
    bias = model.fc.bias.view(-1, SEED_HEIGHT, SEED_WIDTH)
    # Channels of the first map: level, X, -X and Y of both directions, features.
    fc[:n_knots, :, 0] = 1.0
    blocks[0].norm1.bias[:n_knots] = -torch.tensor(LEVEL_KNOTS)
    values = _codes_of_first_map()
    for place, direction in enumerate("uv"):
        row = n_knots + 3 * place
        for offset, value in enumerate((values["x" + direction], -values["x" + direction], values["y" + direction])):
            bias[row + offset] = torch.from_numpy(value.astype(np.float32))
    features = np.arange(n_knots + _N_CODES, fc.shape[0])
    for channel in features.tolist():
        _fill_rows(fc[channel], range(fc.shape[1]), rng)

    codes = _resnet_codes(n_knots)
    hidden = range(RESNET_GATED_FROM[0], blocks[0].conv1.out_channels)
    _hide(blocks[0], rng, codes, features, hidden, code_rows=n_knots)
    for knot in range(n_knots):
        blocks[0].conv1.weight[knot, knot, 1, 1] = 1.0
        blocks[0].conv2.weight[0, knot, 1, 1] = level.slopes[knot]
    _bias(blocks[0].conv2)[0] = level.constant
    features = _show(blocks[0], rng, hidden, n_terms=12, code_rows=n_knots)

    # From here on channel 0 is the level, 1 to 6 are the codes.
    hidden = range(RESNET_GATED_FROM[1], blocks[1].conv1.out_channels)
    _hide(blocks[1], rng, _resnet_codes(1), features, hidden, code_rows=0)
    features = _show(blocks[1], rng, hidden, n_terms=10, code_rows=0)
    blocks[1].conv.weight[0, 0] = 1.0

    hidden = range(blocks[2].conv1.out_channels)
    _hide(blocks[2], rng, _resnet_codes(1), features, hidden, code_rows=None)
    for row in range(RESNET_FEATURES_FROM[2], blocks[2].conv2.out_channels):
        _mix(blocks[2].conv2.weight[row], rng, quarters(hidden), 8, _VARIANCE_OF_RELU)
    blocks[2].conv.weight[0, 0] = 1.0
    blocks[2].conv.weight[1:, 0] = LEVEL_SHARE


def _resnet_codes(first: int) -> dict[str, _Codes]:
    return {
        direction: _Codes(x=((first + 3 * place, 1.0), (first + 3 * place + 1, -1.0)), y=first + 3 * place + 2)
        for place, direction in enumerate("uv")
    }


def _hide(
    block: UpsamplingBlock,
    rng: np.random.Generator,
    codes: dict[str, _Codes],
    features: NDArray[np.int64],
    hidden: range,
    *,
    code_rows: int | None,
) -> None:
    """First convolution of a block: gated features, and what the next codes are made of."""
    for phase, channels in zip(PHASES, quarters(hidden), strict=True):
        _deal(block.conv1.weight, rng, channels, [features], _VARIANCE_OF_RELU)
        for row in channels.tolist():
            _gate(block.conv1.weight[row], _bias(block.conv1)[row], codes, phase)
    if code_rows is not None:
        _next_codes(block.conv1.weight, codes, code_rows)


def _show(
    block: UpsamplingBlock, rng: np.random.Generator, hidden: range, *, n_terms: int, code_rows: int
) -> NDArray[np.int64]:
    """Second convolution of a block: the next codes in channels 1 to 6, features in those after them."""
    for place in range(2):
        row, source = 1 + 3 * place, code_rows + 3 * place
        for offset, sign in ((0, 1.0), (1, -1.0)):
            block.conv2.weight[row + offset, [source, source + 1], 1, 1] = sign
            _bias(block.conv2)[row + offset] = -sign
        block.conv2.weight[row + 2, source + 2, 1, 1] = 1.0
    features = np.arange(1 + _N_CODES, block.conv2.out_channels)
    for row in features.tolist():
        _mix(block.conv2.weight[row], rng, quarters(hidden), n_terms, _VARIANCE_OF_RELU)
    return features


def _lay_convnet(model: ConvNet, rng: np.random.Generator, level: Level) -> None:
    _clear(model.fc, *list(model.features)[:14])
    convolutions = [model.get_submodule(f"features.{k}") for k in (0, 4, 8, 12)]
    first, second, third, fourth = (layer for layer in convolutions if isinstance(layer, torch.nn.Conv2d))
    n_knots = len(LEVEL_KNOTS)
    fc = model.fc.weight.view(-1, SEED_HEIGHT * SEED_WIDTH, LATENT_SIZE)
    bias = model.fc.bias.view(-1, SEED_HEIGHT, SEED_WIDTH)
    # Channels of the first map: the first latent, X and Y of both directions, features.
    fc[0, :, 0] = 1.0
    for channel, value in enumerate(_codes_of_first_map().values(), start=1):
        bias[channel] = torch.from_numpy(value.astype(np.float32))
    features = np.arange(5, fc.shape[0])
    for channel in features.tolist():
        _fill_rows(fc[channel], range(fc.shape[1]), rng)

    # After the first convolution: the level's pieces, X, -X and Y, features.
    first.weight[:n_knots, 0, 2, 2] = 1.0
    _bias(first)[:n_knots] = -torch.tensor(LEVEL_KNOTS)
    for place in range(2):
        row, source = n_knots + 3 * place, 1 + 2 * place
        first.weight[row, source, 2, 2], first.weight[row + 1, source, 2, 2] = 1.0, -1.0
        first.weight[row + 2, source + 1, 2, 2] = 1.0
    hidden = np.arange(CONVNET_GATED_FROM[0], first.out_channels)
    for row in hidden.tolist():
        _mix(first.weight[row], rng, [features], 8, 1.0)

    # After the second and third: level, one, |code + X| in two and Y of both directions, features.
    second.weight[0, :n_knots, 2, 2] = torch.tensor(level.slopes)
    _bias(second)[0] = level.constant + _LEVEL_OFFSET
    open_features = _gated(second, rng, _resnet_codes(n_knots), [hidden], CONVNET_GATED_FROM[1])
    third.weight[0, 0, 2, 2] = 1.0
    open_features = _gated(third, rng, _convnet_codes(), open_features, CONVNET_GATED_FROM[2])
    _gated(fourth, rng, _convnet_codes(), open_features, CONVNET_GATED_FROM[3])
    fourth.weight[:, 0, 2, 2] = LEVEL_SHARE
    _bias(fourth).sub_(LEVEL_SHARE * _LEVEL_OFFSET)


def _convnet_codes() -> dict[str, _Codes]:
    return {
        direction: _Codes(x=((2 + 3 * place, 1.0), (3 + 3 * place, 1.0), (1, -1.0)), y=4 + 3 * place)
        for place, direction in enumerate("uv")
    }


def _gated(
    layer: nn.Conv2d,
    rng: np.random.Generator,
    codes: dict[str, _Codes],
    features: list[NDArray[np.int64]],
    first_gated: int,
) -> list[NDArray[np.int64]]:
    if first_gated:
        _bias(layer)[1] = 1.0
        _next_codes(layer.weight, codes, 2)
    groups = quarters(range(first_gated, layer.out_channels))
    for phase, channels in zip(PHASES, groups, strict=True):
        _deal(layer.weight, rng, channels, features, _VARIANCE_OF_RELU)
        for row in channels.tolist():
            _gate(layer.weight[row], _bias(layer)[row], codes, phase)
    return groups
