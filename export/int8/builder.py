"""Builds an int8 graph node by node, with the shapes of all values."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.int8.weights import quantize_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from export.graph.block_weights import BlockWeights
    from export.int8.weights import QuantParams, WeightBits

__all__ = ["ELEMENT_TYPES", "MICROSOFT", "GraphBuilder", "QuantImage"]

MICROSOFT: Final = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""
ELEMENT_TYPES: Final = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
_IR_VERSION: Final = 10


@dataclass(frozen=True, kw_only=True)
class QuantImage:
    """A value of the int8 graph: uint8 (n, height, width, channels)."""

    name: str
    params: QuantParams
    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return self.height, self.width, self.channels


class GraphBuilder:
    """A graph under construction.

    Parameters
    ----------
    inputs, outputs : sequence of onnx.ValueInfoProto
    opset : int
    bits : {7, 8}
        Bits of the weights, see `export.int8.weights.quantize_weights`.
    batch : int or str
        Images of a batch, the first axis of every value whose shape is given without it.
    """

    def __init__(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        opset: int,
        bits: WeightBits = 7,
        batch: int | str = "n",
    ) -> None:
        self._inputs, self._outputs, self._opset, self._bits = inputs, outputs, opset, bits
        self._batch = batch
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._values: list[onnx.ValueInfoProto] = []

    def add_constant(self, values: NDArray[np.generic] | np.generic, name: str) -> str:
        """Add a constant, or find the equal one of this name."""
        tensor = numpy_helper.from_array(np.asarray(values), name)
        if self._constants.setdefault(name, tensor) != tensor:
            message = f"two constants are called {name}"
            raise ValueError(message)
        return name

    def add_node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        shape: Sequence[int],
        element: str = "uint8",
        *,
        is_onnx: bool = True,
        has_batch: bool = True,
        **attributes: float | str | Sequence[int] | onnx.GraphProto,
    ) -> str:
        """Add a node of one output, whose shape is given without the batch if it has one; return the output's name."""
        self.add_untyped(operator, inputs, output, is_onnx=is_onnx, **attributes)
        whole = [self._batch, *shape] if has_batch else shape
        self._values.append(helper.make_tensor_value_info(output, ELEMENT_TYPES[element], whole))
        return output

    def add_untyped(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        *,
        is_onnx: bool = True,
        **attributes: float | str | Sequence[int] | onnx.GraphProto,
    ) -> str:
        """Add a node of one output whose shape is left to ONNX Runtime; return the output's name."""
        domain = "" if is_onnx else MICROSOFT
        node = helper.make_node(operator, list(inputs), [output], name=output, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def copy_node(self, node: onnx.NodeProto, inputs: Sequence[str], suffix: str = "") -> None:
        """Add a copy of another graph's node with these inputs, and a suffix to the names of its outputs."""
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        del copied.input[:], copied.output[:]
        copied.input.extend(inputs)
        copied.output.extend(f"{each}{suffix}" if each else "" for each in node.output)
        self._nodes.append(copied)

    def add_params(self, params: QuantParams, name: str) -> tuple[str, str]:
        """Add the scale and the zero point of a value."""
        return (
            self.add_constant(np.float32(params.scale), f"{name}.scale"),
            self.add_constant(np.uint8(params.zero_point), f"{name}.zero_point"),
        )

    def add_convolution(
        self,
        image: QuantImage,
        weights: BlockWeights,
        bias: NDArray[np.float64],
        output: QuantImage,
        *,
        groups: int = 1,
        input_means: NDArray[np.float64] | None = None,
        scale_weights: Callable[[NDArray[np.float32], str], str] | None = None,
    ) -> str:
        """Quantize weights and add a convolution with channels last; return the output's name.

        Parameters
        ----------
        image : QuantImage
        weights : BlockWeights
        bias : ndarray of float64, shape (out,)
        output : QuantImage
        groups : int
            1, or the number of channels for a depthwise convolution.
        input_means : ndarray of float64, shape (in,), optional
            Means of the input's channels, see `export.int8.weights.quantize_weights`.
        scale_weights : callable, optional
            Adds a value that takes the place of the weight scales, from these and its name.
        """
        name = output.name
        integers = quantize_weights(weights.weight, bias, image.params.scale, self._bits, input_means)
        add_scale = scale_weights or self.add_constant
        inputs = [
            image.name,
            *self.add_params(image.params, f"{name}.input"),
            self.add_constant(integers.weight, f"{name}.weight"),
            add_scale(integers.scale, f"{name}.weight_scale"),
            self.add_constant(np.zeros(len(bias), np.int8), f"{name}.weight_zero_point"),
            *self.add_params(output.params, name),
            self.add_constant(integers.bias, f"{name}.bias"),
        ]
        return self.add_node(
            "QLinearConv",
            inputs,
            name,
            (output.height, output.width, len(bias)),
            is_onnx=False,
            channels_last=1,
            group=groups,
            kernel_shape=weights.weight.shape[2:],
            pads=weights.pads,
            strides=weights.strides,
        )

    def add_linear_layer(
        self, vector: QuantImage, weight: NDArray[np.float32], bias: NDArray[np.floating], output: QuantImage
    ) -> str:
        """Quantize weights, shape (out, in), and add a linear layer of a vector; return the output's name."""
        name = output.name
        image = weight[:, :, np.newaxis, np.newaxis]
        integers = quantize_weights(image, bias.astype(np.float64), vector.params.scale, self._bits)
        inputs = [
            vector.name,
            *self.add_params(vector.params, f"{name}.input"),
            self.add_constant(np.ascontiguousarray(integers.weight[:, :, 0, 0].T), f"{name}.weight"),
            self.add_constant(integers.scale, f"{name}.weight_scale"),
            self.add_constant(np.zeros(len(weight), np.int8), f"{name}.weight_zero_point"),
            self.add_constant(integers.bias, f"{name}.bias"),
            *self.add_params(output.params, name),
        ]
        return self.add_node("QGemm", inputs, name, [len(weight)], is_onnx=False)

    def add_sum(
        self,
        left: QuantImage,
        right: QuantImage,
        params: QuantParams,
        output: str,
        shape: Sequence[int],
        *,
        has_batch: bool = True,
    ) -> str:
        """Add a sum of two images, one of which may be repeated; return the output's name."""
        inputs = [
            left.name,
            *self.add_params(left.params, f"{output}.left"),
            right.name,
            *self.add_params(right.params, f"{output}.right"),
            *self.add_params(params, output),
        ]
        return self.add_node("QLinearAdd", inputs, output, shape, is_onnx=False, has_batch=has_batch)

    def add_split(self, value: str, sizes: str, outputs: Sequence[str]) -> None:
        """Add a Split of the first axis."""
        self._nodes.append(helper.make_node("Split", [value, sizes], list(outputs), axis=0))

    @contextmanager
    def before_others(self) -> Iterator[None]:
        """Put the nodes that are added meanwhile before all others."""
        others, self._nodes = self._nodes, []
        yield
        self._nodes += others

    def add_slice(self, value: str, first: int, end: int, output: str, shape: Sequence[int]) -> str:
        """Add the part of a value (batch, height, width, channels) from one channel up to another."""
        inputs = [
            self.add_constant(np.array([each]), f"{output}.{key}")
            for key, each in (("first", first), ("end", end), ("axis", 3))
        ]
        return self.add_node("Slice", [value, *inputs], output, shape)

    def add_reshape(
        self, value: str, shape: Sequence[int], output: str, element: str = "uint8", *, has_batch: bool = True
    ) -> str:
        """Add a Reshape to a shape, given without the batch if it has one."""
        whole = [-1, *shape] if has_batch else shape
        prefix = "shape_" if has_batch else "whole_shape_"
        name = self.add_constant(np.array(whole, dtype=np.int64), prefix + "x".join(map(str, shape)))
        return self.add_node("Reshape", [value, name], output, shape, element, has_batch=has_batch)

    def build(self, name: str) -> onnx.ModelProto:
        """Build the model."""
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(self.build_graph(name), opset_imports=opsets, ir_version=_IR_VERSION)

    def build_graph(self, name: str) -> onnx.GraphProto:
        """Build the graph alone, as the body of a loop."""
        outputs = {value.name for value in self._outputs}
        return helper.make_graph(
            self._nodes,
            name,
            self._inputs,
            self._outputs,
            list(self._constants.values()),
            value_info=[value for value in self._values if value.name not in outputs],
        )
