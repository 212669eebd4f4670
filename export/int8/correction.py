"""The last layer and the thresholds of the charges are set so that the integers' charge spectrum falls on float32's.

Rounding at each layer adds noise, and noise at a threshold that few pixels reach moves more of them up than down. A straight
line from the values of the 8-bit graph to those of the float32 graph, rank by rank among the largest (the hits and
half as many below), takes most of that back; it becomes part of the weights and the bias of the last convolution.

What a line leaves is taken back by the thresholds: that of each charge is moved to where the integers have as many values
at or above it as float32 has above its own.
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


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line, slope times x plus offset."""

    slope: float
    offset: float


def fit_line(integers: NDArray[np.float32], exact: NDArray[np.float32], head: OutputRange, threshold: float) -> Line:
    """Fit the line from the largest tanh values of an 8-bit graph to those of the float32 graph, before the tanh.

    Parameters
    ----------
    integers, exact : ndarray of float32
        Tanh values of the two graphs on the same latents.
    head : HeadRange
        Values at its ends are left out: what lies beyond them is not known.
    threshold : float
        The smallest tanh value of a hit.

    Returns
    -------
    Line
        The identity if there are hardly any hits.
    """
    n_ranks = int(_RANKS_PER_HIT * np.count_nonzero(exact >= threshold))
    if n_ranks < _MIN_RANKS:
        return Line(slope=1.0, offset=0.0)
    x, y = (_largest(values, n_ranks) for values in (integers, exact))
    margin = _EDGE_STEPS * head.step
    known = (x > head.low + margin) & (x < head.high - margin) & (y < head.high)
    if np.count_nonzero(known) < _MIN_RANKS or np.ptp(x[known]) == 0:
        return Line(slope=1.0, offset=0.0)
    slope, offset = np.polyfit(x[known], y[known], 1)
    return Line(slope=float(slope), offset=float(offset))


def fold_line(model: onnx.ModelProto, line: Line) -> onnx.ModelProto:
    """Give a graph whose last convolution gives the line's values of what it gave."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    last = next(node for node in reversed(made.graph.node) if node.op_type == "Conv")
    if len(last.input) == 2:
        none = numpy_helper.from_array(np.zeros(1, np.float32), f"{last.output[0]}.no_bias")
        made.graph.initializer.append(none)
        last.input.append(none.name)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    for name, offset in zip(last.input[1:], (0.0, line.offset), strict=True):
        values = numpy_helper.to_array(tensors[name]).astype(np.float64) * line.slope + offset
        tensors[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return made


def match_thresholds(
    integers: NDArray[np.float32], exact: NDArray[np.float32], thresholds: NDArray[np.float32], min_charge: int
) -> NDArray[np.float32]:
    """Find the thresholds with which an 8-bit graph has the charge spectrum of the float32 graph.

    Parameters
    ----------
    integers, exact : ndarray of float32
        Tanh values of the two graphs on the same latents.
    thresholds : ndarray of float32, shape (255,)
        Of the float32 graph.
    min_charge : int
        Smallest charge of a hit, ADU; thresholds of smaller ones are not looked for.

    Returns
    -------
    ndarray of float32, shape (255,)
        Strictly ascending. Charges that fewer than a hundred values reach keep their distance, before the tanh, from the
        last one that was found; all of them keep their places if there is none.
    """
    exact_counts = np.array([np.count_nonzero(exact >= threshold) for threshold in thresholds])
    found = np.arctanh(np.clip(thresholds.astype(np.float64), -_LIMIT, _LIMIT))
    is_known = (np.arange(1, len(found) + 1) >= min_charge) & (exact_counts >= _MIN_RANKS)
    if not is_known.any():
        return thresholds
    first, last = np.flatnonzero(is_known)[[0, -1]]
    # Values in ascending order, and of each how many lie at or above it.
    values, counts = np.unique(integers, return_counts=True)
    at_or_above = np.cumsum(counts[::-1])[::-1]
    places = np.array([np.abs(at_or_above - count).argmin() for count in exact_counts[first : last + 1]])
    between = np.arctanh(np.clip((values[places] + values[np.maximum(places - 1, 0)]) / 2.0, -_LIMIT, _LIMIT))
    found[:first] += between[0] - found[first]
    found[last + 1 :] += between[-1] - found[last]
    found[first : last + 1] = between
    return _ascending(np.tanh(found).astype(np.float32))


def _ascending(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lift values that are not above those before them by as little as can be, and lower those that reach 1."""
    made = values.copy()
    for place in range(1, len(made)):
        made[place] = max(made[place], np.nextafter(made[place - 1], np.float32(2)))
    largest = np.float32(1)
    for place in reversed(range(len(made))):
        made[place] = min(made[place], largest)
        largest = np.nextafter(made[place], np.float32(-2))
    return made


def _largest(values: NDArray[np.float32], n_ranks: int) -> NDArray[np.float64]:
    """Give the largest values in their order, before the tanh."""
    flat = values.ravel()
    largest = np.partition(flat, len(flat) - n_ranks)[-n_ranks:].astype(np.float64)
    return np.arctanh(np.clip(np.sort(largest), -_LIMIT, _LIMIT))
