"""Charges instead of tanh values: a byte a pixel leaves the graph, a quarter of what travels from a GPU.

The charge of a value t is the number of thresholds that are not greater than t (`export.charge`), in the graph as in the
runtime's kernel. Nothing in ONNX counts them, so the graph estimates the charge by the formula, 256^(t/2 + 1/2) - 1,
whose rounding may differ by one from the table, and then asks the table about the thresholds on both sides of the
estimate. A value that is not a number has the charge 255 and so stands out.
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


def append_charges(model: onnx.ModelProto, thresholds: np.ndarray[tuple[int], np.dtype[np.float32]]) -> onnx.ModelProto:
    """Let a graph of one output give charges.

    Parameters
    ----------
    model : onnx.ModelProto
        Its output is float32, tanh values.
    thresholds : ndarray of float32, shape (255,)
        Ascending: the smallest value of each charge from 1 on.

    Returns
    -------
    onnx.ModelProto
        Its output of the same name is uint8, ADU.
    """
    made = ir.from_proto(model)
    graph = made.graph
    (values,) = graph.outputs
    name = str(values.name)
    values.name = f"{name}.values"
    # Behind the last threshold stands one that no value reaches, not even infinity; before the first, one that all do.
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
    for each in constants.values():
        graph.register_initializer(each)
    tape = ir.tape.Tape(graph)
    # What is not a number is estimated as the largest charge, and no comparison with it corrects that.
    sound = tape.op("Where", [tape.op("IsNaN", [values]), constants["one"], values])
    exponent = tape.op("Mul", [tape.op("Add", [sound, constants["one"]]), constants["slope"]])
    power = tape.op("Sub", [tape.op("Exp", [exponent]), constants["one"]])
    bounded = tape.op("Clip", [power, constants["least"], constants["largest"]])
    # Rounded to the nearest integer, the estimate g is the charge or one above it: t decides.
    nearest = tape.op("Cast", [tape.op("Round", [bounded])], {"to": int(ir.DataType.INT32)})
    at = tape.op("Gather", [constants["table"], nearest])
    above = tape.op("Gather", [constants["table"], tape.op("Add", [nearest, constants["next"]])])
    is_below = tape.op("Cast", [tape.op("Less", [values, at])], {"to": int(ir.DataType.INT32)})
    is_above = tape.op("Cast", [tape.op("GreaterOrEqual", [values, above])], {"to": int(ir.DataType.INT32)})
    exact = tape.op("Add", [tape.op("Sub", [nearest, is_below]), is_above])
    result = tape.op("Cast", [exact], {"to": int(ir.DataType.UINT8)})
    result.name, result.shape, result.dtype = name, values.shape, ir.DataType.UINT8
    graph.outputs[0] = result
    common_passes.ShapeInferencePass()(made)
    return ir.to_proto(made)
