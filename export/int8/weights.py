"""Quantization parameters of a range, and quantized weights with one scale per output channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IntegerWeights", "QuantParams", "WeightBits", "fit_quant_params", "quantize_weights"]

WeightBits = Literal[7, 8]
_MAX_LEVEL: Final = 255
_MAX_BIAS: Final = 2**30
"""Half of the range of 32 bits; the other half is for the products that are added to the bias."""


@dataclass(frozen=True, kw_only=True)
class QuantParams:
    """Meaning of an unsigned 8-bit level q: the value is scale times (q - zero_point)."""

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class IntegerWeights:
    """Weights as integers.

    Attributes
    ----------
    weight : ndarray of int8, shape (out, in, height, width)
    scale : ndarray of float32, shape (out,)
    bias : ndarray of int32, shape (out,)
        In units of scale times the scale of the input.
    """

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32]


def fit_quant_params(low: float, high: float) -> QuantParams:
    """Fit the 256 levels to a range and 0, which must be a level because pads are zeros."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / _MAX_LEVEL)) or 1.0
    return QuantParams(scale=scale, zero_point=min(_MAX_LEVEL, round(-low / scale)))


def quantize_weights(
    weight: NDArray[np.float32],
    bias: NDArray[np.float64],
    input_scale: float,
    bits: WeightBits,
    input_means: NDArray[np.float64] | None = None,
) -> IntegerWeights:
    """Quantize the weights of a convolution symmetrically, with one scale for each output channel.

    Parameters
    ----------
    weight : ndarray of float32, shape (out, in, height, width)
    bias : ndarray of float64, shape (out,)
    input_scale : float
        Scale of the input.
    bits : {7, 8}
        7 keeps the weights within -64 to 64. CPUs without VNNI add two products of an unsigned and a signed byte in 16
        bits, which saturate. 2 * 255 * 64 is below 2^15, so with 7 bits every CPU computes the same integers.
    input_means : ndarray of float64, shape (in,), optional
        Means of the input's channels. The bias is corrected by the mean change of the result through rounded weights.
    """
    largest = 64 if bits == 7 else 127
    flat = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float64)
    scale = np.maximum(flat / largest, np.abs(bias) / (input_scale * _MAX_BIAS)).astype(np.float32)
    scale[scale == 0] = 1.0
    steps = scale.reshape(-1, 1, 1, 1).astype(np.float64)
    integers = np.clip(np.rint(weight / steps), -largest, largest)
    if input_means is not None:
        bias = bias + (weight - integers * steps).sum(axis=(2, 3)) @ input_means
    return IntegerWeights(
        weight=integers.astype(np.int8),
        scale=scale,
        bias=np.rint(bias / (input_scale * scale.astype(np.float64))).astype(np.int32),
    )
