"""The range of every value of a graph, and means of what its convolutions take, found by running it on latents of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from pxdbg_runtime.inference.providers import CPU, import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Means", "Ranges", "calibrate", "measure_means"]

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest element of a value, by its name."""
Means = dict[str, "NDArray[np.float64]"]
"""Means of the channels of a convolution's input, shape (in,), by the name of its result."""
_MEASURED: Final = frozenset({"Conv", "Add", "Reshape", "BatchNormalization"})


def calibrate(model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> Ranges:
    """Run a graph on inputs and note the range of what its layers give.

    Parameters
    ----------
    model : onnx.ModelProto
        Simplified: values are those of convolutions, sums and reshaped linear layers.
    inputs : mapping of str to ndarray of float32
        Of many images, along the first axis; they are run one by one.
    """
    given = {value.name for value in model.graph.output}
    names = [node.output[0] for node in model.graph.node if node.op_type in _MEASURED and node.output[0] not in given]
    ranges: Ranges = {}
    for values in _values(model, names, inputs):
        for name, value in values.items():
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def measure_means(model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> Means:
    """Run a graph on inputs and note the means of what its convolutions take, with the parameters of `calibrated`."""
    taken = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Conv"}
    sums: Means = {}
    n_images = len(next(iter(inputs.values())))
    for values in _values(model, sorted(set(taken.values())), inputs):
        for name, value in values.items():
            sums[name] = sums.get(name, np.float64(0.0)) + value.mean(axis=(0, 2, 3), dtype=np.float64)
    return {result: sums[name] / n_images for result, name in taken.items()}


def _values(
    model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, NDArray[np.float32]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Give some values of a graph for one image after the other."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=[CPU])
    for image in range(len(next(iter(inputs.values())))):
        feed = {name: values[image : image + 1] for name, values in inputs.items()}
        yield dict(zip(names, session.run(names, feed), strict=True))
