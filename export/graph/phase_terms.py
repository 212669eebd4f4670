"""Compute the phases of a convolution of an upsampled image as sums of terms, which phases share: fewer products.

After a nearest upsampling by 2, the output row 2 i + r (phase r: 0 or 1) is a sum over rows i + o of the small image,
with taps P_r[o] that are sums of the original ones. Each original tap is in one P_0[o] and in one P_1[o], so both
phases have the same total S. A kernel D whose taps add up to zero is a kernel on the differences of rows, which has one
tap less:

    sum_o D[o] x[i + o] = sum_o E[o] (x[i + o] - x[i + o + 1]),    E[o] = D[o] + D[o - 1] + ...

For an odd kernel of n taps, each phase has (n + 1) / 2 taps: apart they take n + 1 products. They take n products

- as S x[i], plus P_r - S on differences for each phase;
- as P_1, plus P_0 - P_1 on differences for phase 0, if both phases have taps at the same offsets: fewer sums.

Columns are split in the same way: 9 products an input pixel instead of 16 for a kernel of 3 x 3, 25 instead of 36 for
5 x 5.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from export.graph.nodes import Convolution
    from export.graph.rules import Writer

__all__ = ["PhaseGrid", "write_sums_of_terms"]

_MIN_PRODUCTS_PER_ELEMENT: Final = 16
"""Products that take about as long as writing an element: each further element must save more."""

_Pads = tuple[tuple[int, int] | None, tuple[int, int] | None]
PhaseGrid = tuple[tuple["ir.Value", "ir.Value"], tuple["ir.Value", "ir.Value"]]
"""The phases of 2 x 2 pixels, by row and column."""


@dataclass(frozen=True, kw_only=True)
class _Term:
    """A kernel along one axis of the small image, or of its differences.

    Attributes
    ----------
    taps : ndarray of float64, shape (taps, original taps)
        Each tap as a sum of original ones.
    first : int
        Offset of the first tap.
    is_of_differences : bool
    """

    taps: NDArray[np.float64]
    first: int
    is_of_differences: bool = False

    @property
    def image_pads(self) -> tuple[int, int] | None:
        """Zeros before and after the image whose differences are taken; None if they are not."""
        return (-self.first, self.first + len(self.taps)) if self.is_of_differences else None

    @property
    def pads(self) -> tuple[int, int]:
        """Zeros before and after the image that the kernel takes."""
        return (0, 0) if self.is_of_differences else (-self.first, self.first + len(self.taps) - 1)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Terms along one axis. Phase r is the sum of those whose indices are `phases[r]`, always with the first."""

    terms: tuple[_Term, ...]
    phases: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def n_sums(self) -> int:
        return sum(len(indices) - 1 for indices in self.phases)


def write_sums_of_terms(write: Writer, found: Convolution, small: ir.Value) -> PhaseGrid | None:
    """Write the phases of a convolution of an upsampled image as sums of terms; None if that saves too little.

    Parameters
    ----------
    write : Writer
    found : Convolution
        Keeps the size of its image.
    small : ir.Value
        The image before the upsampling.
    """
    (height, width), (top, left) = found.weight.shape[2:], found.pads[:2]
    if 1 in (height, width):  # Both phases are the same along such an axis.
        return None
    rows, columns = _choose_terms(height, top), _choose_terms(width, left)
    if not _are_worthwhile(found, rows, columns):
        return None
    terms = _TermWriter(write, found, small)
    by_term = [[terms.write(row, column) for column in columns.terms] for row in rows.terms]
    by_column = [[_write_sum(write, each, columns.phases[column]) for each in by_term] for column in (0, 1)]
    upper, lower = ([_write_sum(write, each, rows.phases[row]) for each in by_column] for row in (0, 1))
    return (upper[0], upper[1]), (lower[0], lower[1])


class _TermWriter:
    """Writes the terms of a convolution, and the differences that they take."""

    def __init__(self, write: Writer, found: Convolution, small: ir.Value) -> None:
        self._write, self._found = write, found
        self._images: dict[_Pads, ir.Value] = {(None, None): small}
        self._n_terms = 0

    def write(self, row: _Term, column: _Term) -> ir.Value:
        """Write one term; the first, which is in all phases, has the bias."""
        weight = np.einsum("ya,xb,oiab->oiyx", row.taps, column.taps, self._found.weight.astype(np.float64))
        suffix = f"term{self._n_terms}"
        inputs = [self._find_image(row, column), self._write.constant(weight.astype(np.float32), f"{suffix}.weight")]
        if self._n_terms == 0:
            inputs.append(self._write.constant(self._found.bias, f"{suffix}.bias"))
        self._n_terms += 1
        (top, bottom), (left, right) = row.pads, column.pads
        return self._write.node("Conv", inputs, pads=(top, left, bottom, right), kernel_shape=weight.shape[2:])

    def _find_image(self, row: _Term, column: _Term) -> ir.Value:
        """Find the image or the differences that a term takes; differences are written when first needed."""
        key = row.image_pads, column.image_pads
        if key not in self._images:
            differences = [np.ones(1) if pads is None else np.array([1.0, -1.0]) for pads in key]
            kernel = np.multiply.outer(*differences).astype(np.float32)
            channels = self._found.weight.shape[1]
            weight = self._write.constant(
                np.tile(kernel, (channels, 1, 1, 1)), f"differences{len(self._images)}.weight"
            )
            (top, bottom), (left, right) = ((0, 0) if pads is None else pads for pads in key)
            self._images[key] = self._write.node(
                "Conv",
                [self._images[None, None], weight],
                pads=(top, left, bottom, right),
                kernel_shape=kernel.shape,
                group=channels,
            )
        return self._images[key]


def _write_sum(write: Writer, values: Sequence[ir.Value], indices: Sequence[int]) -> ir.Value:
    return functools.reduce(lambda a, b: write.node("Add", [a, b]), [values[index] for index in indices])


def _are_worthwhile(found: Convolution, rows: _Axis, columns: _Axis) -> bool:
    """Whether terms save enough products for the elements that they write."""
    n_out, n_in, height, width = map(int, found.weight.shape)
    n_saved = ((height + 1) * (width + 1) - height * width) * n_out * n_in
    images = {(row.image_pads, column.image_pads) for row, column in itertools.product(rows.terms, columns.terms)}
    n_sums = len(rows.terms) * columns.n_sums + 2 * rows.n_sums
    n_outputs = len(rows.terms) * len(columns.terms) + n_sums - 4  # the four phases are written anyway
    n_written = (len(images) - 1) * n_in + n_outputs * n_out
    return n_saved > _MIN_PRODUCTS_PER_ELEMENT * n_written


def _choose_terms(n_taps: int, pad: int) -> _Axis:
    first, phases = _place_taps(n_taps, pad)
    have_equal_offsets = phases.any(axis=2).all()
    return _split_by_phase(first, phases) if have_equal_offsets else _split_by_total(first, phases)


def _split_by_phase(first: int, phases: NDArray[np.float64]) -> _Axis:
    """Take phase 1, then what phase 0 differs from it."""
    terms = _Term(taps=phases[1], first=first), _take_differences(phases[0] - phases[1], first)
    return _Axis(terms=terms, phases=((0, 1), (0,)))


def _split_by_total(first: int, phases: NDArray[np.float64]) -> _Axis:
    """Take the total, then what each phase differs from it."""
    total = _Term(taps=np.ones((1, phases.shape[2])), first=0)
    rest = phases.copy()
    rest[:, -first] -= total.taps
    return _Axis(terms=(total, *(_take_differences(each, first) for each in rest)), phases=((0, 1), (0, 2)))


def _place_taps(n_taps: int, pad: int) -> tuple[int, NDArray[np.float64]]:
    """Place the original taps of both phases: the first offset, and an array of shape (2, offsets, original taps)."""
    placed = (np.arange(2)[:, None] + np.arange(n_taps) - pad) // 2
    offsets = np.arange(placed.min(), placed.max() + 1)
    return int(offsets[0]), (placed[:, None] == offsets[:, None]).astype(np.float64)


def _take_differences(taps: NDArray[np.float64], first: int) -> _Term:
    """Make a kernel whose taps add up to zero a kernel of differences, without taps of zero at its ends."""
    sums = np.cumsum(taps, axis=0)
    (used,) = np.nonzero(sums.any(axis=1))
    return _Term(taps=sums[used[0] : used[-1] + 1], first=first + int(used[0]), is_of_differences=True)
