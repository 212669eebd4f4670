"""Writes the nodes of a new graph one after the other, and keeps the shape of what each gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.int8.weights import quantize_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from export.graph.block_weights import BlockWeights
    from export.int8.weights import QuantParams, WeightBits

__all__ = ["MICROSOFT", "GraphBuilder"]

MICROSOFT: Final = "com.microsoft"
"""Domain of the operators that ONNX Runtime has beyond ONNX."""

_ELEMENT_TYPES: Final = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


class GraphBuilder:
    """A graph in the making.

    Parameters
    ----------
    inputs, outputs : sequence of onnx.ValueInfoProto
    opset : int
    """

    def __init__(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], opset: int
    ) -> None:
        self._inputs, self._outputs, self._opset = inputs, outputs, opset
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._values: list[onnx.ValueInfoProto] = []

    def constant(self, values: NDArray[np.generic] | np.generic, name: str) -> str:
        """Add a constant; one of a name that is there already must be the same."""
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if self._constants.setdefault(name, tensor) != tensor:
            message = f"two constants are called {name}"
            raise ValueError(message)
        return name

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        shape: Sequence[int],
        element: str = "uint8",
        *,
        is_onnx: bool = True,
        **attributes: float | str | Sequence[int],
    ) -> str:
        """Add a node with one output, whose shape is given but for the batch; return the output's name."""
        domain = "" if is_onnx else MICROSOFT
        made = helper.make_node(operator, list(inputs), [output], name=output, domain=domain)
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(made)
        self._values.append(helper.make_tensor_value_info(output, _ELEMENT_TYPES[element], ["n", *shape]))
        return output

    def copied(self, node: onnx.NodeProto, inputs: Sequence[str]) -> None:
        """Add a node of another graph, with other inputs."""
        made = onnx.NodeProto()
        made.CopyFrom(node)
        del made.input[:]
        made.input.extend(inputs)
        self._nodes.append(made)

    def level_constants(self, levels: QuantParams, name: str) -> tuple[str, str]:
        """Add the scale and the zero point of a value."""
        return (
            self.constant(np.float32(levels.scale), f"{name}.scale"),
            self.constant(np.uint8(levels.zero_point), f"{name}.zero_point"),
        )

    def convolution(
        self,
        image: str,
        image_levels: QuantParams,
        weights: BlockWeights,
        bias: NDArray[np.float64],
        levels: QuantParams,
        name: str,
        size: tuple[int, int],
        bits: WeightBits,
        groups: int = 1,
        input_means: NDArray[np.float64] | None = None,
    ) -> str:
        """Add a convolution of 8-bit integers, channels last; its weights become integers here.

        Parameters
        ----------
        image : str
            uint8 (n, height, width, channels).
        image_levels : Levels
        weights : BlockWeights
        bias : ndarray of float64, shape (out,)
        levels : Levels
            Of the result.
        name : str
            Of the result.
        size : tuple of int
            Its height and width.
        bits : {7, 8}
            Of the weights.
        groups : int
            1, or the number of channels, each of which is then convolved with itself alone.
        input_means : ndarray of float64, shape (in,), optional
            See `export.int8.weights.integer_weights`.
        """
        integers = quantize_weights(weights.weight, bias, image_levels.scale, bits, input_means)
        inputs = [
            image,
            *self.level_constants(image_levels, f"{name}.input"),
            self.constant(integers.weight, f"{name}.weight"),
            self.constant(integers.scale, f"{name}.weight_scale"),
            self.constant(np.zeros(len(bias), np.int8), f"{name}.weight_zero_point"),
            *self.level_constants(levels, name),
            self.constant(integers.bias, f"{name}.bias"),
        ]
        return self.node(
            "QLinearConv",
            inputs,
            name,
            (*size, len(bias)),
            is_onnx=False,
            channels_last=1,
            group=groups,
            kernel_shape=weights.weight.shape[2:],
            pads=weights.pads,
            strides=weights.strides,
        )

    def reshaped(self, value: str, shape: Sequence[int], output: str, element: str = "uint8") -> str:
        """Give a value another shape, the batch in front."""
        name = self.constant(np.array([-1, *shape], dtype=np.int64), "shape_" + "x".join(map(str, shape)))
        return self.node("Reshape", [value, name], output, shape, element)

    def model(self, name: str) -> onnx.ModelProto:
        """Put the graph together."""
        given = {value.name for value in self._outputs}
        graph = helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            self._outputs,
            list(self._constants.values()),
            value_info=[value for value in self._values if value.name not in given],
        )
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


_IR_VERSION: Final = 10
