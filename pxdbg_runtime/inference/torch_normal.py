"""Transform uniform values to normal ones as PyTorch does on the CPU, bit for bit.

PyTorch fills blocks of sixteen by the method of Box and Muller, with float32 vector code for AVX2 and fused
multiply-add (FMA). Logarithm, sine and cosine are the polynomials of the Cephes library (``logf.c``, ``sinf.c``), and
the compiler fuses some of their products and sums. Which ones was found by comparison with ``torch.randn`` of PyTorch
2.13.0 on x86-64: those below give equal bits, the others do not. On a CPU without AVX2, PyTorch itself gives values
that differ in the last places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TORCH_BLOCK", "transform_blocks"]

TORCH_BLOCK: Final = 16
"""PyTorch computes normal values in blocks of sixteen, and uses another algorithm for fewer."""
_MANTISSA_BITS: Final = 23
_EXPONENT_MASK: Final = 0x7F800000
_SQRT_HALF: Final = np.float32(0.707106781186547524)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""The sum is ln 2; products of the first with an exponent are exact."""
_LOG: Final = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_EIGHTHS_OF_TURN: Final = np.float32(1.27323954473516)
"""4 / pi."""
_MINUS_PI_QUARTER: Final = (-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8)
"""The sum is -pi / 4."""
_COS: Final = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_SIN: Final = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)


def transform_blocks(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Transform uniform values to normal ones; the halves of a block of sixteen are the pairs of Box and Muller.

    Parameters
    ----------
    uniform : ndarray of float32, shape (n,)
        In [0, 1); n is a multiple of 16.

    Returns
    -------
    ndarray of float32, shape (n,)
    """
    blocks = uniform.reshape(-1, 2, TORCH_BLOCK // 2)
    radius = np.sqrt(np.float32(-2.0) * _compute_log(np.float32(1.0) - blocks[:, 0]))
    sine, cosine = _compute_sin_cos(np.float32(2.0 * np.pi) * blocks[:, 1])
    return np.stack((radius * cosine, radius * sine), axis=1).reshape(-1)


def _compute_log(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the natural logarithm of positive normal numbers."""
    bits = x.view(np.int32)
    exponent = ((bits >> _MANTISSA_BITS) - 126).astype(np.float32)
    fraction = ((bits & ~_EXPONENT_MASK) | np.float32(0.5).view(np.int32)).view(np.float32)  # in [1/2, 1)
    is_small = fraction < _SQRT_HALF
    exponent -= is_small.astype(np.float32)
    y = fraction - np.float32(1.0)
    y += np.where(is_small, fraction, np.float32(0.0))
    square = y * y
    sum_ = _fma(_evaluate(_LOG, y) * y, square, exponent * _LN2_LOW)
    return _fma(exponent, _LN2_HIGH, y + _fma(square, np.float32(-0.5), sum_))


def _compute_sin_cos(angle: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute sine and cosine of angles from 0 to 2 pi."""
    octant = ((angle * _EIGHTHS_OF_TURN).astype(np.int32) + 1) & ~1
    x, n_octants = angle, octant.astype(np.float32)
    for part in _MINUS_PI_QUARTER:
        x = _fma(n_octants, np.float32(part), x)
    square = x * x
    cosine = _fma(_evaluate(_COS, square) * square, square, square * np.float32(-0.5)) + np.float32(1.0)
    sine = _fma(_evaluate(_SIN, square) * square, x, x)
    is_swapped = (octant & 2) != 0
    sign_of_sine = np.where(octant & 4, np.float32(-1.0), np.float32(1.0))
    sign_of_cosine = np.where((octant - 2) & 4, np.float32(1.0), np.float32(-1.0))
    return np.where(is_swapped, cosine, sine) * sign_of_sine, np.where(is_swapped, sine, cosine) * sign_of_cosine


def _evaluate(coefficients: tuple[float, ...], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Evaluate a polynomial, the highest power first, with fused steps."""
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = _fma(value, x, np.float32(coefficient))
    return value


def _fma(
    a: NDArray[np.float32], b: NDArray[np.float32] | np.float32, c: NDArray[np.float32] | np.float32
) -> NDArray[np.float32]:
    """Compute ``a * b + c`` in float32 with one rounding.

    The product of two float32 is exact in float64. The sum is rounded to odd (Boldo and Melquiond, 2008): then the
    rounding to float32 is that of the exact sum.
    """
    product = a.astype(np.float64) * b
    total = product + c
    part_of_c = total - product
    error = (product - (total - part_of_c)) + (c - part_of_c)  # exact (Knuth's two-sum)
    is_even = (total.view(np.int64) & 1) == 0
    rounded = np.where(is_even & (error != 0.0), np.nextafter(total, np.copysign(np.inf, error)), total)
    return rounded.astype(np.float32)
