"""Charges as the output of a graph: one byte per pixel, a quarter of the transfer from a GPU.

The charge of a value t is the number of thresholds that are not greater than t (`export.charge`), as in the runtime's
kernel. ONNX has no operator that counts them. So the graph estimates the charge by the formula 256^(t/2 + 1/2) - 1,
which rounding may shift by one, and compares t with the thresholds on both sides of the estimate. NaN becomes the
charge 255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from export.graph.nodes import make_initializer

if TYPE_CHECKING:
    import onnx

__all__ = ["append_charges"]


def append_charges(
    model: onnx.ModelProto, thresholds: np.ndarray[tuple[int], np.dtype[np.float32]], cut: float | None = None
) -> onnx.ModelProto:
    """Replace the output of a graph, tanh values, by charges.

    Parameters
    ----------
    model : onnx.ModelProto
        Its one output is float32, tanh values.
    thresholds : ndarray of float32, shape (255,)
        Ascending: the smallest value of each charge from 1 on.
    cut : float, optional
        Values that are not greater have charge 0.

    Returns
    -------
    onnx.ModelProto
        The output of the same name is uint8, ADU.
    """
    extended = ir.from_proto(model)
    graph = extended.graph
    (values,) = graph.outputs
    name, shape = str(values.name), values.shape
    values.name = f"{name}.values"
    # NaN after the last threshold is reached by no value, not even infinity; -infinity before the first by all.
    table = np.concatenate([[-np.inf], thresholds, [np.nan]]).astype(np.float32)
    constants = {
        key: make_initializer(f"{name}.{key}", np.asarray(value))
        for key, value in {
            "table": table,
            "slope": np.float32(0.5 * np.log(256.0)),
            "one": np.float32(1.0),
            "least": np.float32(0.0),
            "largest": np.float32(len(thresholds)),
            "next": np.int32(1),
        }.items()
    }
    if cut is not None:
        constants["cut"] = make_initializer(f"{name}.cut", np.asarray(np.float32(cut)))
        constants["empty"] = make_initializer(f"{name}.empty", np.asarray(np.float32(-1.0)))
    for each in constants.values():
        graph.register_initializer(each)
    tape = ir.tape.Tape(graph)
    if cut is not None:
        is_empty = tape.op("LessOrEqual", [values, constants["cut"]])
        values = tape.op("Where", [is_empty, constants["empty"], values])
    # NaN is estimated as the largest charge, and comparisons with NaN do not correct that.
    numbers = tape.op("Where", [tape.op("IsNaN", [values]), constants["one"], values])
    exponent = tape.op("Mul", [tape.op("Add", [numbers, constants["one"]]), constants["slope"]])
    power = tape.op("Sub", [tape.op("Exp", [exponent]), constants["one"]])
    bounded = tape.op("Clip", [power, constants["least"], constants["largest"]])
    # The rounded estimate is at most one from the charge: t decides.
    nearest = tape.op("Cast", [tape.op("Round", [bounded])], {"to": int(ir.DataType.INT32)})
    at = tape.op("Gather", [constants["table"], nearest])
    above = tape.op("Gather", [constants["table"], tape.op("Add", [nearest, constants["next"]])])
    is_below = tape.op("Cast", [tape.op("Less", [values, at])], {"to": int(ir.DataType.INT32)})
    is_above = tape.op("Cast", [tape.op("GreaterOrEqual", [values, above])], {"to": int(ir.DataType.INT32)})
    exact = tape.op("Add", [tape.op("Sub", [nearest, is_below]), is_above])
    result = tape.op("Cast", [exact], {"to": int(ir.DataType.UINT8)})
    result.name, result.shape, result.dtype = name, shape, ir.DataType.UINT8
    graph.outputs[0] = result
    common_passes.ShapeInferencePass()(extended)
    return ir.to_proto(extended)
