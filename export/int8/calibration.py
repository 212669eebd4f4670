"""The range of every value of a graph, found by running it on latents of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from pxdbg_runtime.providers import CPU, import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Ranges", "calibrated"]

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest element of a value, by its name."""
_MEASURED: Final = frozenset({"Conv", "Add", "Reshape", "BatchNormalization"})


def calibrated(model: onnx.ModelProto, inputs: Mapping[str, NDArray[np.float32]]) -> Ranges:
    """Run a graph on inputs and note the range of what its layers give.

    Parameters
    ----------
    model : onnx.ModelProto
        Simplified: values are those of convolutions, sums and reshaped linear layers.
    inputs : mapping of str to ndarray of float32
        Of many images, along the first axis; they are run one by one.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given = {value.name for value in model.graph.output}
    names = [node.output[0] for node in model.graph.node if node.op_type in _MEASURED and node.output[0] not in given]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=[CPU])
    ranges: Ranges = {}
    for image in range(len(next(iter(inputs.values())))):
        feed = {name: values[image : image + 1] for name, values in inputs.items()}
        for name, value in zip(names, session.run(names, feed), strict=True):
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges
