"""The charge transform of the original, and the thresholds that replace it.

The transform, in float32 and in this order: ``x = clamp(t*0.5 + 0.5, 0, 1)``; ``c = clamp(256**x - 1, 0, 255)``; the
charge is c truncated. It is monotone in t, so the smallest value of each charge, 255 thresholds, defines it. A family
with a cut sets each t that is not greater to -1 first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from pxdbg_runtime.model.card import N_THRESHOLDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["compute_charges", "compute_hit_charges", "cut_thresholds", "find_charge_thresholds"]

_MIN_VECTORISED: Final = 4096
"""PyTorch computes a power of a few values by another path, which differs by one ulp at charges 93 and 187."""


def compute_charges(values: Tensor, cut: float | None = None) -> Tensor:
    """Compute charges.

    Parameters
    ----------
    values : Tensor of float32, any shape
        Tanh values, thousands of them: on a few, PyTorch takes another path.
    cut : float, optional
        Values that are not greater become -1.

    Returns
    -------
    Tensor of uint8, same shape
        ADU.
    """
    if cut is not None:
        values = torch.where(values > cut, values, -1.0)
    fraction = torch.clamp(values * 0.5 + 0.5, 0, 1)
    return torch.clamp(256**fraction - 1, 0, 255).to(torch.uint8)


def find_charge_thresholds() -> NDArray[np.float32]:
    """Find the smallest float32 value of each charge by bisection over all float32 values in [-1, 1].

    Returns
    -------
    ndarray of float32, shape (255,)
        For charges 1 to 255 ADU, ascending.
    """
    charges = np.arange(1, N_THRESHOLDS + 1)
    below = np.full(N_THRESHOLDS, _rank(np.float32(-1.0)), dtype=np.int64)
    reaching = np.full(N_THRESHOLDS, _rank(np.float32(1.0)), dtype=np.int64)
    while np.any(reaching - below > 1):
        middle = (below + reaching) // 2
        reached = _compute_charges_vectorised(_value_at(middle)) >= charges
        reaching = np.where(reached, middle, reaching)
        below = np.where(reached, below, middle)
    return _value_at(reaching)


def cut_thresholds(thresholds: NDArray[np.float32], cut: float | None) -> NDArray[np.float32]:
    """Raise thresholds, float32 of shape (255,), that are not above a cut to the smallest float32 above it."""
    if cut is None:
        return thresholds
    return np.maximum(thresholds, np.nextafter(np.float32(cut), np.float32(np.inf)))


def compute_hit_charges(
    values: NDArray[np.float32], thresholds: NDArray[np.float32], min_charge: int
) -> NDArray[np.int64]:
    """Compute charges by thresholds, 0 below the smallest charge of a hit.

    Parameters
    ----------
    values : ndarray of float32, any shape
        Tanh values.
    thresholds : ndarray of float32, shape (255,)
    min_charge : int
        Smallest charge of a hit, ADU.

    Returns
    -------
    ndarray of int64, same shape
        ADU.
    """
    charges = np.searchsorted(thresholds, values, side="right")
    return np.where(charges < min_charge, 0, charges)


def _compute_charges_vectorised(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    filled = np.zeros(_MIN_VECTORISED, dtype=np.float32)
    filled[: len(values)] = values
    charges: NDArray[np.uint8] = compute_charges(torch.from_numpy(filled)).numpy()
    return charges[: len(values)]


def _rank(value: np.float32) -> int:
    """Rank a float32 among all of them: adjacent values have adjacent ranks."""
    bits = int(value.view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _value_at(rank: NDArray[np.int64]) -> NDArray[np.float32]:
    magnitude = np.abs(rank).astype(np.int32).view(np.float32)
    return np.where(rank < 0, -magnitude, magnitude).astype(np.float32)
