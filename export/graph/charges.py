"""Charges as the output of a graph: one byte per pixel, a quarter of the transfer from a GPU.

The charge of a value t is the number of thresholds that are not greater than t (`export.charge`), as in the runtime's
kernel. ONNX has no operator that counts them. So the graph cuts [-1, 1] into bins that are finer than the thresholds:
the number of the bin of t gives the charges below and above the one threshold in it, and t is compared with that one.
The bin is a product and a sum in float32, which never decrease as t grows, so the charge is exact. NaN becomes the
charge 255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from export.graph.nodes import make_initializer

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

__all__ = ["append_charges"]

_BINS_PER_UNIT: Final = 2048
"""A power of two, so that the product is exact. The closest thresholds are 0.0014 apart."""


def append_charges(model: onnx.ModelProto, thresholds: np.ndarray[tuple[int], np.dtype[np.float32]]) -> onnx.ModelProto:
    """Replace the output of a graph, tanh values, by charges.

    Parameters
    ----------
    model : onnx.ModelProto
        Its one output is float32, tanh values.
    thresholds : ndarray of float32, shape (255,)
        Ascending, in [-1, 1]: the smallest value of each charge from 1 on. Several may be equal.

    Returns
    -------
    onnx.ModelProto
        The output of the same name is uint8, ADU.

    Raises
    ------
    ValueError
        If two different thresholds are in the same bin.
    """
    extended = ir.from_proto(model)
    graph = extended.graph
    (values,) = graph.outputs
    name, shape = str(values.name), values.shape
    values.name = f"{name}.values"
    below, threshold, above = _tabulate(thresholds)
    constants = {
        key: make_initializer(f"{name}.{key}", np.asarray(value))
        for key, value in {
            "least": np.float32(-1.0),
            "largest": np.float32(1.0),
            "bins": np.float32(_BINS_PER_UNIT),
            "below": below,
            "threshold": threshold,
            "above": above,
        }.items()
    }
    for each in constants.values():
        graph.register_initializer(each)
    tape = ir.tape.Tape(graph)
    numbers = tape.op("Where", [tape.op("IsNaN", [values]), constants["largest"], values])
    bounded = tape.op("Clip", [numbers, constants["least"], constants["largest"]])
    position = tape.op("Add", [tape.op("Mul", [bounded, constants["bins"]]), constants["bins"]])
    bins = tape.op("Cast", [position], {"to": int(ir.DataType.INT32)})
    low, edge, high = (tape.op("Gather", [constants[key], bins]) for key in ("below", "threshold", "above"))
    result = tape.op("Where", [tape.op("GreaterOrEqual", [bounded, edge]), high, low])
    result.name, result.shape, result.dtype = name, shape, ir.DataType.UINT8
    graph.outputs[0] = result
    common_passes.ShapeInferencePass()(extended)
    return ir.to_proto(extended)


def _tabulate(
    thresholds: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Tabulate for each bin the charge below its threshold, the threshold (infinite if none), and the charge above."""
    bins = (thresholds * np.float32(_BINS_PER_UNIT) + np.float32(_BINS_PER_UNIT)).astype(np.int64)
    distinct = np.unique(thresholds)
    if len(np.unique(bins)) != len(distinct):
        message = f"two of the thresholds are closer than the bins of {1 / _BINS_PER_UNIT:.2g}"
        raise ValueError(message)
    numbers = np.arange(2 * _BINS_PER_UNIT + 1)
    edges = np.full(len(numbers), np.inf, dtype=np.float32)
    edges[bins] = thresholds
    below, above = (np.searchsorted(bins, numbers, side=side).astype(np.uint8) for side in ("left", "right"))
    return below, edges, above
