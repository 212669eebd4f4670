"""How far ONNX Runtime's images are from PyTorch's in float32 and in float64, on the same latents in every export.

PyTorch's own float32 is computed twice: as the model is, and with batch norms folded into the convolutions before them, as in
every graph. Folding rounds each weight, which matters for weights that cancel exactly before.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.charge import compute_charges, compute_hit_charges
from export.errors import ParityError
from export.fidelity import compute_images, draw_latents
from pxdbg_runtime.model.card import Parity
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from export.families import GeneratorModule

__all__ = [
    "REFERENCE_EVENT",
    "REFERENCE_SEED",
    "ReferenceImages",
    "compute_references",
    "measure_parity",
    "require_parity",
]

REFERENCE_SEED: Final = -3
REFERENCE_EVENT: Final = 0
_SENSORS: Final = range(0, N_SENSORS, 5)
"""Sensors whose images are compared, eight of the event's forty."""
_MAX_RATIO: Final = 2.0
"""By how many times more than PyTorch's own float32 images a graph's may differ from float64: both round, in different orders."""
_LEAST_BOUND: Final = 5e-6
"""Rounding in one sum of a hundred terms can reach this, so no graph is refused for a smaller difference."""
_MAX_BOUND: Final = 1e-3
"""However coarse PyTorch's own images are, a graph that differs by more from float64 is refused."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceImages:
    """Images of a model in PyTorch, from latents of the Philox stream.

    Attributes
    ----------
    sensors : tuple of int
        Indices of the sensors whose latents were taken.
    latent : ndarray of float32, shape (images, values)
    exact : ndarray of float64, shape (images, 250, 768)
        Tanh values computed in float64.
    float32 : ndarray of float32, shape (images, 250, 768)
        Tanh values computed in float32.
    folded : ndarray of float32, shape (images, 250, 768)
        The same with batch norms folded into the convolutions before them.
    """

    sensors: tuple[int, ...]
    latent: NDArray[np.float32]
    exact: NDArray[np.float64]
    float32: NDArray[np.float32]
    folded: NDArray[np.float32]


def compute_references(model: GeneratorModule, latent_size: int) -> ReferenceImages:
    """Compute the images that a graph is compared with."""
    latent = draw_latents(latent_size, N_SENSORS, REFERENCE_SEED)[_SENSORS]
    rows = [torch.from_numpy(row[np.newaxis]) for row in latent]
    in_float64 = copy.deepcopy(model).double()
    with torch.inference_mode():
        exact = torch.cat([in_float64(row.double()) for row in rows]).numpy()
        float32, folded = (torch.cat([each(row) for row in rows]).numpy() for each in (model, _fold_batch_norms(model)))
    return ReferenceImages(sensors=tuple(_SENSORS), latent=latent, exact=exact, float32=float32, folded=folded)


def measure_parity(
    references: ReferenceImages, graph: onnx.ModelProto, thresholds: NDArray[np.float32], min_charge: int
) -> Parity:
    """Compare the images of a graph with those of its model.

    Parameters
    ----------
    references : ReferenceImages
    graph : onnx.ModelProto
        It gives tanh values.
    thresholds : ndarray of float32, shape (255,)
        Of the graph's charges.
    min_charge : int
        Smallest charge of a hit, ADU: pixels with less are empty in both.
    """
    found = np.concatenate(list(compute_images(graph, references.latent)))
    charges = compute_hit_charges(found, thresholds, min_charge)
    expected = compute_charges(torch.from_numpy(references.float32)).numpy()
    expected = np.where(expected < min_charge, 0, expected)
    is_hit = (charges > 0) | (expected > 0)
    return Parity(
        images=len(found),
        max_abs_difference=_largest_difference(found, references.float32),
        max_float64_difference=_largest_difference(found, references.exact),
        pytorch_float64_difference=max(
            _largest_difference(each, references.exact) for each in (references.float32, references.folded)
        ),
        equal_charges=float((charges == expected)[is_hit].mean()) if is_hit.any() else 1.0,
    )


def require_parity(parity: Parity) -> None:
    """Refuse a float32 graph that is much farther from float64 than PyTorch's own float32.

    Raises
    ------
    ParityError
        If its largest difference from float64 is more than twice that of PyTorch's float32 images, or more than 0.001.
    """
    bound = min(max(_MAX_RATIO * parity.pytorch_float64_difference, _LEAST_BOUND), _MAX_BOUND)
    if not parity.max_float64_difference <= bound:
        message = (
            f"The graph's images differ from those of the model in float64 by up to {parity.max_float64_difference:.3g}, more than "
            f"the {bound:.3g} that is allowed (twice what PyTorch's float32 images differ by, at least {_LEAST_BOUND:g}, at most "
            f"{_MAX_BOUND:g}): nothing was written. The releases of onnxruntime and torch may be at fault: try the newest ones."
        )
        raise ParityError(parity.max_float64_difference, message)


def _fold_batch_norms(model: GeneratorModule) -> GeneratorModule:
    """Copy a model with each batch norm that follows a convolution in a sequence folded into it."""
    folded = copy.deepcopy(model)
    for sequence in folded.modules():
        if isinstance(sequence, nn.Sequential):
            for number, (layer, following) in enumerate(pairwise(sequence)):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    sequence[number] = fuse_conv_bn_eval(layer, following)
                    sequence[number + 1] = nn.Identity()
    return folded


def _largest_difference(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    difference = np.abs(found.astype(np.float64) - expected)
    # A NaN must not pass for a small number. Three digits are enough, and the same on every machine.
    return float(f"{np.nan_to_num(difference, nan=np.inf).max():.3g}")
