"""Compute what comes before the first image in such a way that every CPU gets the same values.

CPUs add float32 products in different orders, with or without rounding each product, so the last place of their sum
differs. A factor of a conditional batch norm that differs there moves digits. So no sum of float32 products is left:

- A linear layer of the condition, as that of all factors and offsets, is a sum of integers. The condition has 16 bits
  and the weights have 14, as two bytes each: c = s (256 h + l), w = t (128 p + q). ``QGemm`` multiplies h and l by p
  and q. As in `export.int8.weights`, |p| and |q| are at most 64, with which every CPU computes the same integers.
- All else is computed in float64, and rounded to float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir
from onnx import TensorProto

from export.errors import GraphError
from export.graph.nodes import match_linear_layer, read_constant

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx
    from numpy.typing import NDArray

    from export.graph.nodes import LinearLayer
    from export.int8.builder import GraphBuilder
    from export.int8.calibration import Ranges

__all__ = ["Conditions"]

_MARGIN: Final = 2.0
"""A condition is represented up to so many times the largest of the calibration."""
_CONDITION_BASE: Final = 256
_ZERO_POINT: Final = 128
"""The unsigned byte of h or l that means 0."""
_MAX_CONDITION: Final = 127 * _CONDITION_BASE + 127
_WEIGHT_BASE: Final = 128
_MAX_WEIGHT: Final = 64 * _WEIGHT_BASE + 63


class Conditions:
    """Adds float32 values that depend on no image to an int8 graph.

    Parameters
    ----------
    builder : GraphBuilder
        Of the int8 graph.
    nodes : mapping of str to onnx.NodeProto
        The nodes of the float32 graph, by the names of their outputs.
    ranges : Ranges
        Of the inputs of its linear layers.
    """

    def __init__(self, builder: GraphBuilder, nodes: Mapping[str, onnx.NodeProto], ranges: Ranges) -> None:
        self._builder, self._nodes, self._ranges = builder, nodes, ranges
        self._added: set[str] = set()

    def add(self, value: ir.Value) -> str:
        """Add a value of float32 under its own name; return the name."""
        node, name = value.producer(), str(value.name)
        if node is None or name in self._added:
            return name if value.is_graph_input() or node is not None else self._add_constant(value)
        source = _require(node.inputs[0])
        if (layer := match_linear_layer(node)) is not None:
            self._add_linear_layer(layer, source, name)
        elif node.op_type == "Split" and match_linear_layer(source.producer()) is not None:
            inputs = [self.add(source), *(self._add_constant(_require(each)) for each in node.inputs[1:])]
            self._builder.copy_node(self._nodes[name], inputs)
            self._added |= {str(each.name) for each in node.outputs}
        else:
            self._builder.add_untyped("Cast", [self._add_float64(value)], name, to=TensorProto.FLOAT)
        self._added.add(name)
        return name

    def _add_constant(self, value: ir.Value) -> str:
        constant = read_constant(value)
        if constant is None:
            message = f"the value {value.name} has no producer"
            raise GraphError(message)
        return self._builder.add_constant(constant, str(value.name))

    def _add_float64(self, value: ir.Value) -> str:
        """Add a value, in float64 if it was float32, with all before it; return its new name."""
        node, constant, name = value.producer(), read_constant(value), f"{value.name}.float64"
        is_float32 = value.dtype == ir.DataType.FLOAT
        if node is None and not is_float32:
            return str(value.name) if constant is None else self._add_constant(value)
        if constant is not None:
            return self._builder.add_constant(constant.astype(np.float64), name)
        if name in self._added:
            return name
        if node is None or (node.op_type == "Cast" and is_float32):
            source = str(value.name) if node is None else self._add_float64(_require(node.inputs[0]))
            self._builder.add_untyped("Cast", [source], name, to=TensorProto.DOUBLE)
        elif node.op_type == "MatMul" and all(each is not None and _is_matrix(each) for each in node.inputs):
            # ONNX Runtime 1.21.0 joins a MatMul and a transposition before it to an operator without float64.
            inputs = [self._add_float64(_require(each)) for each in node.inputs]
            self._builder.add_untyped("Einsum", inputs, name, equation="...ij,...jk->...ik")
        else:
            inputs = ["" if each is None else self._add_float64(each) for each in node.inputs]
            self._builder.copy_node(self._nodes[str(value.name)], inputs, ".float64")
            self._added |= {f"{each.name}.float64" for each in node.outputs}
        self._added.add(name)
        return name

    def _add_linear_layer(self, layer: LinearLayer, source: ir.Value, name: str) -> None:
        """Add a linear layer of the condition, float32 (n, in) to (n, out)."""
        step = np.float32(_MARGIN * max(map(abs, self._ranges[str(source.name)])) / _MAX_CONDITION) or np.float32(1)
        weight_steps = np.abs(layer.weight).max(axis=1).astype(np.float64) / _MAX_WEIGHT
        weight_steps[weight_steps == 0] = 1.0
        integers = np.rint(layer.weight / weight_steps[:, np.newaxis])
        high = np.rint(integers / _WEIGHT_BASE)
        weight = np.concatenate([high, integers - _WEIGHT_BASE * high]).astype(np.int8)
        scales = np.concatenate([_WEIGHT_BASE * weight_steps, weight_steps]).astype(np.float32)
        bytes_of_condition = self._add_bytes(self.add(source), step, name)
        constants = (
            step,
            np.uint8(_ZERO_POINT),
            np.ascontiguousarray(weight.T),
            scales,
            np.zeros(len(scales), np.int8),
        )
        products = self._apply("QGemm", bytes_of_condition, f"{name}.products", *constants, is_onnx=False)
        by_bytes = self._apply("Reshape", products, f"{name}.by_bytes", np.array([2, -1, 2, len(layer.weight)]))
        bases = np.array([_CONDITION_BASE, 1], np.float32).reshape(2, 1, 1, 1)
        value = self._apply("Mul", by_bytes, f"{name}.scaled", bases)
        # The sum of two values has no order.
        for axis in (0, 1):
            value = self._apply("ReduceSum", value, f"{name}.sums_{axis}", np.array([axis]), keepdims=0)
        self._apply("Add", value, name, layer.bias)

    def _add_bytes(self, condition: str, step: np.float32, name: str) -> str:
        """Add the bytes of the condition (n, in) as uint8 (2 n, in), h of all images before l."""
        value = self._apply("Mul", condition, f"{name}.steps", np.float32(1) / step)
        value = self._apply("Round", value, f"{name}.rounded")
        value = self._apply("Max", value, f"{name}.at_least", np.float32(-_MAX_CONDITION))
        integers = self._apply("Min", value, f"{name}.integers", np.float32(_MAX_CONDITION))
        value = self._apply("Add", integers, f"{name}.moved", np.float32(_ZERO_POINT))
        value = self._apply("Mul", value, f"{name}.shares", np.float32(1 / _CONDITION_BASE))
        high = self._apply("Floor", value, f"{name}.high")
        value = self._apply("Mul", high, f"{name}.of_high", np.float32(_CONDITION_BASE))
        low = self._builder.add_untyped("Sub", [integers, value], f"{name}.low")
        both = self._builder.add_untyped("Concat", [high, low], f"{name}.both", axis=0)
        value = self._apply("Add", both, f"{name}.levels", np.float32(_ZERO_POINT))
        return self._builder.add_untyped("Cast", [value], f"{name}.bytes", to=TensorProto.UINT8)

    def _apply(
        self,
        operator: str,
        value: str,
        output: str,
        *constants: NDArray[np.generic] | np.generic,
        is_onnx: bool = True,
        **attributes: int,
    ) -> str:
        """Add an operator on a value and constants; return the name of the result."""
        names = [self._builder.add_constant(each, f"{output}.{index}") for index, each in enumerate(constants)]
        return self._builder.add_untyped(operator, [value, *names], output, is_onnx=is_onnx, **attributes)


def _is_matrix(value: ir.Value) -> bool:
    """Whether a value has two axes or more."""
    return value.shape is not None and len(value.shape) > 1


def _require(value: ir.Value | None) -> ir.Value:
    if value is None:
        message = "a layer lacks an input"
        raise GraphError(message)
    return value
