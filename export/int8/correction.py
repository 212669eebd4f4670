"""Correct the last layer and the charge thresholds so that the int8 charge spectrum matches float32's.

Rounding at each layer adds noise, and at a threshold that few pixels reach, noise moves more pixels up than down. A
straight line from the values of the int8 graph to those of the float32 graph, fitted rank by rank to the largest
values (the hits and half as many below), corrects most of that. It is folded into the weights and the bias of the last
convolution.

The thresholds correct the rest: each moves to where as many int8 values reach it as float32 values reach its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.int8.last_layer import OutputRange

__all__ = ["Line", "fit_line", "fold_line", "match_thresholds"]

_RANKS_PER_HIT: Final = 1.5
_MIN_RANKS: Final = 100
_EDGE_STEPS: Final = 2
_LIMIT: Final = 1.0 - 1e-7
_PART: Final = 2**18


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line, slope times x plus offset."""

    slope: float
    offset: float


def fit_line(
    integers: NDArray[np.float32], exact: NDArray[np.float32], output_range: OutputRange, threshold: float
) -> Line:
    """Fit the line from the largest values of an int8 graph to those of the float32 graph, before the tanh.

    Parameters
    ----------
    integers, exact : ndarray of float32
        Tanh values of the two graphs on the same inputs.
    output_range : OutputRange
        Values at its ends are excluded: those beyond it are clipped there.
    threshold : float
        The smallest tanh value of a hit.

    Returns
    -------
    Line
        The identity if there are too few hits for a fit.
    """
    n_ranks = int(_RANKS_PER_HIT * np.count_nonzero(exact >= threshold))
    if n_ranks < _MIN_RANKS:
        return Line(slope=1.0, offset=0.0)
    x, y = (_select_largest(values, n_ranks) for values in (integers, exact))
    margin = _EDGE_STEPS * output_range.step
    is_inside = (x > output_range.low + margin) & (x < output_range.high - margin) & (y < output_range.high)
    if np.count_nonzero(is_inside) < _MIN_RANKS or np.ptp(x[is_inside]) == 0:
        return Line(slope=1.0, offset=0.0)
    slope, offset = np.polyfit(x[is_inside], y[is_inside], 1)
    return Line(slope=float(slope), offset=float(offset))


def fold_line(model: onnx.ModelProto, line: Line) -> onnx.ModelProto:
    """Fold the fitted line into the last convolution; return the new graph."""
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    last = next(node for node in reversed(folded.graph.node) if node.op_type == "Conv")
    if len(last.input) == 2:
        zero = numpy_helper.from_array(np.zeros(1, np.float32), f"{last.output[0]}.no_bias")
        folded.graph.initializer.append(zero)
        last.input.append(zero.name)
    tensors = {tensor.name: tensor for tensor in folded.graph.initializer}
    for name, offset in zip(last.input[1:], (0.0, line.offset), strict=True):
        values = numpy_helper.to_array(tensors[name]).astype(np.float64) * line.slope + offset
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return folded


def match_thresholds(
    integers: NDArray[np.float32], exact: NDArray[np.float32], thresholds: NDArray[np.float32], min_charge: int
) -> NDArray[np.float32]:
    """Find the thresholds with which an int8 graph has the charge spectrum of the float32 graph.

    Parameters
    ----------
    integers, exact : ndarray of float32
        Tanh values of the two graphs on the same inputs.
    thresholds : ndarray of float32, shape (255,)
        Thresholds of the float32 graph.
    min_charge : int
        Smallest charge of a hit, ADU. Thresholds of smaller charges are not matched.

    Returns
    -------
    ndarray of float32, shape (255,)
        Strictly ascending. Thresholds that fewer than a hundred values reach keep their distance, before the tanh,
        from the last one that is matched; if none is matched, all are returned as they are.
    """
    exact_counts = _count_at_or_above(exact, thresholds)
    found = np.arctanh(np.clip(thresholds.astype(np.float64), -_LIMIT, _LIMIT))
    is_known = (np.arange(1, len(found) + 1) >= min_charge) & (exact_counts >= _MIN_RANKS)
    if not is_known.any():
        return thresholds
    first, last = np.flatnonzero(is_known)[[0, -1]]
    # Values in ascending order, and how many values are at or above each.
    values, counts = np.unique(integers, return_counts=True)
    at_or_above = np.cumsum(counts[::-1])[::-1]
    indices = np.array([np.abs(at_or_above - count).argmin() for count in exact_counts[first : last + 1]])
    between = np.arctanh(np.clip((values[indices] + values[np.maximum(indices - 1, 0)]) / 2.0, -_LIMIT, _LIMIT))
    found[:first] += between[0] - found[first]
    found[last + 1 :] += between[-1] - found[last]
    found[first : last + 1] = between
    return _make_ascending(np.tanh(found).astype(np.float32))


def _count_at_or_above(values: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count the values at or above each threshold, in parts: NumPy's places take twice as much memory as values."""
    flat = values.ravel()
    charges = np.zeros(len(thresholds) + 1, np.int64)
    for start in range(0, len(flat), _PART):
        part = flat[start : start + _PART]
        places = np.searchsorted(thresholds, part[~np.isnan(part)], side="right")
        charges += np.bincount(places, minlength=len(charges))
    counts: NDArray[np.int64] = np.cumsum(charges[:0:-1])[::-1]
    return counts


def _make_ascending(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make values strictly ascending and below or at 1, with the smallest changes in float32."""
    ascending = values.copy()
    for index in range(1, len(values)):
        ascending[index] = max(ascending[index], np.nextafter(ascending[index - 1], np.float32(2)))
    largest = np.float32(1)
    for index in reversed(range(len(values))):
        ascending[index] = min(ascending[index], largest)
        largest = np.nextafter(ascending[index], np.float32(-2))
    return ascending


def _select_largest(values: NDArray[np.float32], n_ranks: int) -> NDArray[np.float64]:
    """Select the largest values, ascending, before the tanh."""
    flat = values.ravel()
    largest = np.partition(flat, len(flat) - n_ranks)[-n_ranks:].astype(np.float64)
    return np.arctanh(np.clip(np.sort(largest), -_LIMIT, _LIMIT))
