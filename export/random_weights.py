"""Seeded random weights of the true architectures: something to run, without any physics.

Weights are random, batch-norm statistics are measured on latents, and the last layer is set so that the
occupancy and the mean charge of the hits come out as asked for. Two choices are not plain:

- Weak shortcuts in the blocks of most channels: otherwise blocks of 16 and 32 pixels, copied up from the first feature
  maps, show in every image.
- Every filter but the last has about 12 weights that are not zero, multiples of a quarter of their standard deviation. A sum of
  12,800 random terms has a rounding error of a few 1e-6 of itself, which PyTorch and ONNX Runtime make differently,
  and the last layer would stretch it beyond what the export allows. And random float32 values do not compress: these
  take a fraction of the room in a repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from export.charge import compute_charges, find_charge_thresholds
from export.families import FAMILIES, LATENT_SIZE, GeneratorModule

__all__ = ["Target", "build_random_model"]

_STATISTICS_BATCHES: Final = 6
_BATCH_SIZE: Final = 8
_STEPS_PER_SIGMA: Final = 4
_SHORTCUT_GAIN: Final = 0.1
_MANY_CHANNELS: Final = 256
_TERMS_PER_FILTER: Final = 12
_BISECTIONS: Final = 40
_SMALLEST_VARIANCE: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the images shall look like on average.

    Attributes
    ----------
    occupancy : float
        Share of the pixels with a hit. The real sample's: 0.0090.
    mean_charge : float
        Of the hits, ADU. The real sample's: 22.
    """

    occupancy: float = 0.0090
    mean_charge: float = 22.0


def build_random_model(family: str, seed: int, target: Target | None = None) -> GeneratorModule:
    """Make a model with random weights whose images have a given occupancy and mean charge.

    Parameters
    ----------
    family : {"convnet", "resnet"}
    seed : int
        Of the weights and of the latents on which statistics are measured.
    target : Target, optional

    Returns
    -------
    GeneratorModule
        In inference mode.
    """
    generator = torch.Generator().manual_seed(seed)
    model = FAMILIES[family]()
    with torch.no_grad():
        for module in model.modules():
            _randomise(module, generator)
        _measure_statistics(model, generator)
        _set_last_layer(model, target or Target(), generator)
    return model


def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        _fill_sparsely(module.weight, generator)
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            module.weight *= _SHORTCUT_GAIN if module.in_channels >= _MANY_CHANNELS else 1.0
        if module.bias is not None:
            _fill(module.bias, 0.1, generator)
    elif isinstance(module, nn.BatchNorm2d):
        _fill(module.weight, 0.1, generator)
        module.weight.add_(1.0)
        _fill(module.bias, 0.1, generator)
        module.momentum = None  # running statistics are then plain means over the batches


def _fill_sparsely(weight: Tensor, generator: torch.Generator) -> None:
    n_terms = weight[0].numel()
    # The last filter stays whole: a dozen weights might all be negative, and its output then has no upper tail.
    density = min(1.0, _TERMS_PER_FILTER / n_terms) if len(weight) > 1 else 1.0
    kept = torch.rand(weight.shape, generator=generator) < density
    _fill(weight, (density * n_terms) ** -0.5, generator)
    weight *= kept


def _fill(parameter: Tensor, sigma: float, generator: torch.Generator) -> None:
    normal = torch.randn(parameter.shape, generator=generator)
    parameter.copy_(torch.round(normal * _STEPS_PER_SIGMA) * (sigma / _STEPS_PER_SIGMA))


def _measure_statistics(model: GeneratorModule, generator: torch.Generator) -> None:
    model.train()
    for _ in range(_STATISTICS_BATCHES):
        model(torch.randn(_BATCH_SIZE, LATENT_SIZE, generator=generator))
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            # A channel that hardly varies would be stretched, and its rounding errors with it.
            module.running_var.clamp_(min=_SMALLEST_VARIANCE * module.running_var.mean().item())


def _set_last_layer(model: GeneratorModule, target: Target, generator: torch.Generator) -> None:
    """Scale and shift the last convolution: its output's upper tail becomes the hits.

    With y the convolution's output as it stands, the value before the tanh becomes a y + b. Whatever a, b puts
    the quantile of the wanted occupancy on the threshold of 1 ADU; the mean charge then grows with a.
    """
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    values = _last_outputs(model, last, generator)
    quantile = np.quantile(values, 1.0 - target.occupancy)
    tail = torch.from_numpy(values[values > quantile] - quantile)
    edge = float(np.arctanh(find_charge_thresholds()[0].astype(np.float64)))
    low, high = 0.0, 100.0 / float(values.std())
    for _ in range(_BISECTIONS):
        scale = (low + high) / 2
        mean_charge = compute_charges(torch.tanh(tail * scale + edge)).double().mean().item()
        low, high = (low, scale) if mean_charge > target.mean_charge else (scale, high)
    last.weight *= scale
    if last.bias is not None:
        last.bias *= scale
        last.bias += edge - scale * float(quantile)


def _last_outputs(
    model: GeneratorModule, last: nn.Conv2d, generator: torch.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    outputs: list[Tensor] = []
    hook = last.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    for _ in range(_STATISTICS_BATCHES):
        model(torch.randn(_BATCH_SIZE, LATENT_SIZE, generator=generator))
    hook.remove()
    return torch.cat(outputs).flatten().numpy()
