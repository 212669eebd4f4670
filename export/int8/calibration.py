"""Calibration: ranges of a float32 graph's values, and means of its convolutions' inputs, over many images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from export.errors import GraphError
from export.inference import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from export.families import Feed

__all__ = ["Means", "Ranges", "calibrate", "measure_means"]

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest element of a value, by its name."""
Means = dict[str, "NDArray[np.float64]"]
"""Means of the channels of a convolution's input, shape (in,), by the name of its output."""
_MEASURED: Final = frozenset({"Conv", "Add", "Reshape", "BatchNormalization"})


def calibrate(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Ranges:
    """Measure the range of each layer's output.

    Parameters
    ----------
    model : onnx.ModelProto
        Simplified graph: its layers are convolutions, sums and reshaped linear layers.
    feeds : sequence of Feed
        Inputs of one image each.

    Raises
    ------
    GraphError
        If a value is not finite.
    """
    others = {value.name for value in (*model.graph.output, *model.graph.initializer)}
    layers = [node.output[0] for node in model.graph.node if node.op_type in _MEASURED]
    # The parts of a sum may be an image and the offsets of its channels.
    parts = [name for node in model.graph.node if node.op_type in {"Add", "Gemm"} for name in node.input]
    names = [name for name in dict.fromkeys([*layers, *parts]) if name and name not in others]
    ranges: Ranges = {}
    for values in _compute_values(model, names, feeds):
        for name, value in values.items():
            if not np.isfinite(value).all():
                message = f"int8 cannot hold the values {name}, which are not all finite: export in float32."
                raise GraphError(message)
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def measure_means(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Means:
    """Measure the channel means of each convolution's input; parameters as of `calibrate`."""
    inputs = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    sums: Means = {}
    for values in _compute_values(model, sorted(set(inputs.values())), feeds):
        for name, value in values.items():
            sums[name] = sums.get(name, np.float64(0.0)) + value.mean(axis=(0, 2, 3), dtype=np.float64)
    return {output: sums[name] / len(feeds) for output, name in inputs.items()}


def _compute_values(model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feed]) -> Iterator[Feed]:
    """Compute some values of a graph, image by image."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inputs = {value.name for value in model.graph.input}
    computed = [name for name in names if name not in inputs]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in computed)
    session = open_session(watched)
    for feed in feeds:
        # Asked for no values, ONNX Runtime computes the graph's outputs.
        found = dict(zip(computed, session.run(computed, feed), strict=True)) if computed else {}
        yield {name: feed[name] if name in inputs else found[name] for name in names}
