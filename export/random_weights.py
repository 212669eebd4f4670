"""Seeded random weights of the true architectures, without any physics.

Weights are random, batch-norm statistics are measured on latents, and the last layer is set to give a wanted occupancy
and mean charge. Two choices need a reason:

- Shortcuts in blocks of many channels are weak: otherwise blocks of 16 and 32 pixels, upsampled from the first feature
  maps, show in every image.
- Every filter but the last has about 12 non-zero weights, multiples of a quarter of their standard deviation. A sum of
  12,800 random terms has a relative rounding error of a few 1e-6, which differs between PyTorch and ONNX Runtime, and
  the last layer would scale it beyond the bound of the export. And random float32 values do not compress: these
  weights take a fraction of the space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from export.charge import compute_charges, find_charge_thresholds
from export.families import load_family
from export.families.generator_module import draw_inputs
from pxdbg_runtime.checks import check_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.families import Family
    from export.families.generator_module import GeneratorModule

__all__ = ["HitStatistics", "build_random_model"]

_STATISTICS_BATCHES: Final = 6
_BATCH_SIZE: Final = 8
_STEPS_PER_SIGMA: Final = 4
_SHORTCUT_GAIN: Final = 0.1
_MANY_CHANNELS: Final = 256
_TERMS_PER_FILTER: Final = 12
_BISECTIONS: Final = 40
_SMALLEST_VARIANCE: Final = 0.1


@dataclass(frozen=True, kw_only=True)
class HitStatistics:
    """Wanted averages over the images.

    Attributes
    ----------
    occupancy : float
        Fraction of the pixels with a hit. In the published Geant4 sample: 0.0090.
    mean_charge : float
        Mean charge of the hits, ADU. In the published Geant4 sample: 22.
    """

    occupancy: float = 0.0090
    mean_charge: float = 22.0


def build_random_model(family: str | Family, seed: int, target: HitStatistics | None = None) -> GeneratorModule:
    """Build a model with random weights whose images have a given occupancy and mean charge.

    Parameters
    ----------
    family : str or Family
        One of `export.families.FAMILIES`, or the description of a family or of one of its variants.
    seed : int
        Seed of the weights, and of the latents on which statistics are measured: a signed 64-bit integer.
    target : HitStatistics, optional

    Returns
    -------
    GeneratorModule
        In inference mode.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the seed is no such integer.
    """
    seed = check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    description = load_family(family) if isinstance(family, str) else family
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for what `_randomise` leaves as PyTorch initialises it
        model = description.module_class()
    with torch.no_grad():
        for module in model.modules():
            _randomise(module, generator)
        _measure_statistics(model, description, generator)
        _set_last_layer(model, description, target or HitStatistics(), generator)
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
        module.momentum = None  # running statistics become plain means over the batches


def _fill_sparsely(weight: Tensor, generator: torch.Generator) -> None:
    n_terms = weight[0].numel()
    # The last filter is dense: a dozen weights might all be negative, and its output would have no upper tail.
    density = min(1.0, _TERMS_PER_FILTER / n_terms) if len(weight) > 1 else 1.0
    kept = torch.rand(weight.shape, generator=generator) < density
    _fill(weight, (density * n_terms) ** -0.5, generator)
    weight *= kept


def _fill(parameter: Tensor, sigma: float, generator: torch.Generator) -> None:
    normal = torch.randn(parameter.shape, generator=generator)
    parameter.copy_(torch.round(normal * _STEPS_PER_SIGMA) * (sigma / _STEPS_PER_SIGMA))


def _measure_statistics(model: GeneratorModule, family: Family, generator: torch.Generator) -> None:
    model.train()
    for _ in range(_STATISTICS_BATCHES):
        model(*draw_inputs(family, _BATCH_SIZE, generator))
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            # Normalising a channel that hardly varies would amplify its rounding errors.
            module.running_var.clamp_(min=_SMALLEST_VARIANCE * module.running_var.mean().item())


def _set_last_layer(model: GeneratorModule, family: Family, target: HitStatistics, generator: torch.Generator) -> None:
    """Scale and shift the last convolution so that the upper tail of its output becomes the hits.

    With y the convolution's present output, the value before the tanh becomes a y + b. For any a, b puts the quantile
    of the wanted occupancy on the threshold of 1 ADU. The mean charge then grows with a, which is found by bisection.
    """
    last = [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]
    values = _record_outputs(model, last, family, generator)
    quantile = np.quantile(values, 1.0 - target.occupancy)
    tail = torch.from_numpy(values[values > quantile] - quantile)
    edge = float(np.arctanh(find_charge_thresholds()[0].astype(np.float64)))
    low, high = 0.0, 100.0 / float(values.std())
    for _ in range(_BISECTIONS):
        scale = (low + high) / 2
        mean_charge = compute_charges(torch.tanh(tail * scale + edge)).double().mean().item()
        low, high = (low, scale) if mean_charge > target.mean_charge else (scale, high)
    model.scale_output(scale, edge - scale * float(quantile))


def _record_outputs(
    model: GeneratorModule, layer: nn.Conv2d, family: Family, generator: torch.Generator
) -> NDArray[np.float32]:
    """Record a layer's outputs on random latents, flattened."""
    outputs: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    for _ in range(_STATISTICS_BATCHES):
        model(*draw_inputs(family, _BATCH_SIZE, generator))
    hook.remove()
    recorded: NDArray[np.float32] = torch.cat(outputs).flatten().numpy()
    return recorded
