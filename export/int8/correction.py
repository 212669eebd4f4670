"""The last layer is set so that the integers' spectrum of values falls on float32's.

Rounding at each layer adds noise, and noise at a threshold that few pixels reach moves more of them up than down. A straight
line from the values of the 8-bit graph to those of the float32 graph, rank by rank among the largest (the hits and
half as many below), takes most of that back; it becomes part of the weights and the bias of the last convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from export.int8.head import HeadRange

__all__ = ["Line", "corrected", "line_between"]

_RANKS_PER_HIT: Final = 1.5
_MIN_RANKS: Final = 100
_EDGE_STEPS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Line:
    """A straight line, slope times x plus offset."""

    slope: float
    offset: float


def line_between(integers: NDArray[np.float32], exact: NDArray[np.float32], head: HeadRange, threshold: float) -> Line:
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


def corrected(model: onnx.ModelProto, line: Line) -> onnx.ModelProto:
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


def _largest(values: NDArray[np.float32], n_ranks: int) -> NDArray[np.float64]:
    """Give the largest values in their order, before the tanh."""
    flat = values.ravel()
    largest = np.partition(flat, len(flat) - n_ranks)[-n_ranks:].astype(np.float64)
    limit = 1.0 - 1e-7
    return np.arctanh(np.clip(np.sort(largest), -limit, limit))
