"""Lower a simplified float32 graph to uint8 with channels last, from the first image to the last layer.

Every value between layers is uint8 (n, height, width, channels), and no layer transposes it or converts it to float.
The operators are ONNX Runtime's own for this layout (``com.microsoft``: QLinearConv with channels_last, QLinearAdd),
which its optimiser would create from quantize and dequantize nodes where it succeeds. Such a graph is for the CPU.

- ``Relu`` costs nothing: the layer before gets the zero point 0.
- ``Conv``: see `export.int8.convolutions`.
- ``Add`` with an upsampled image takes the small one: columns doubled as channels, rows by broadcasting.
- ``BatchNormalization`` that cannot be folded is a depthwise convolution.
- ``Slice`` of the first channels is a Slice.
- Batch norms that depend on the condition (`export.graph.conditional_norms`) make a loop over the images of a batch
  (`export.int8.image_loop`).
- The last convolution, whose output is float32, is the sum of two or four 8-bit segments of its range
  (`export.int8.last_layer`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx_ir as ir

from export.errors import GraphError
from export.graph.batch_norms import ChannelAffine, match_batch_norm
from export.graph.block_weights import BlockWeights
from export.graph.conditional_norms import ConditionalNorm, match_conditional_norm
from export.graph.nodes import (
    Convolution,
    LinearLayer,
    find_before_upsampling,
    find_only_user,
    match_convolution,
    match_linear_layer,
    read_shape,
    takes_first_channels,
)
from export.int8.builder import GraphBuilder, QuantImage
from export.int8.conditions import Conditions
from export.int8.convolutions import Convolutions
from export.int8.image_loop import ImageLoop, VaryingAffine
from export.int8.last_layer import OutputRange, add_last_layer
from export.int8.weights import QuantParams, fit_quant_params

if TYPE_CHECKING:
    from export.int8.calibration import Means, Ranges
    from export.int8.weights import WeightBits

__all__ = ["OutputRange", "quantize_graph"]

_LINEAR_MARGIN: Final = 1.25
"""Inputs of a linear layer are represented up to so many times the largest of the calibration."""
_MAX_COARSENING: Final = 0.05
"""By so much a step may grow for a sum of bytes."""


def quantize_graph(
    model: onnx.ModelProto, ranges: Ranges, output_range: OutputRange, bits: WeightBits = 7, means: Means | None = None
) -> onnx.ModelProto:
    """Quantize a simplified graph.

    Parameters
    ----------
    model : onnx.ModelProto
        After `export.graph.INT8_PASSES`.
    ranges : Ranges
        Ranges of its values, see `export.int8.calibration`.
    output_range : OutputRange
        Range of the last convolution's output that matters.
    bits : {7, 8}
        Bits of the weights, see `export.int8.weights.quantize_weights`.
    means : Means, optional
        Means of its convolutions' inputs, to correct their biases.

    Raises
    ------
    GraphError
        If the graph holds an operator that has no int8 form.
    """
    return _Lowering(model, ranges, output_range, bits, means or {}).build()


class _Lowering:
    """Builds the int8 graph, from its outputs back to its inputs."""

    def __init__(
        self, model: onnx.ModelProto, ranges: Ranges, output_range: OutputRange, bits: WeightBits, means: Means
    ) -> None:
        self._old = ir.from_proto(model)
        self._old_nodes = {name: node for node in model.graph.node for name in node.output}
        self._old_constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._ranges, self._output_range, self._means = ranges, output_range, means
        (opset,) = (each.version for each in model.opset_import if each.domain == "")
        self._new = GraphBuilder(model.graph.input, model.graph.output, opset, bits)
        is_conditional = any(match_conditional_norm(node) is not None for node in self._old.graph)
        self._loop = ImageLoop(self._new, opset, bits) if is_conditional else None
        self._integers = self._new if self._loop is None else self._loop.body
        self._floats: dict[str, str] = {value.name: value.name for value in model.graph.input}
        self._images: dict[tuple[str, bool], QuantImage] = {}
        self._wide: dict[str, QuantImage] = {}
        self._convolutions = Convolutions(self._integers, self._loop, means)
        self._conditions = Conditions(self._new, self._old_nodes, ranges)

    def build(self) -> onnx.ModelProto:
        for output in self._old.graph.outputs:
            self._add_float(output)
        return self._new.build("generator")

    def _add_float(self, value: ir.Value) -> str:
        """Add a value in float32, in the layout of the old graph."""
        name = str(value.name)
        if name in self._old_constants:
            return self._new.add_constant(onnx.numpy_helper.to_array(self._old_constants[name]), name)
        if name not in self._floats:
            node = value.producer()
            if node is None:
                message = f"the value {name} has no producer"
                raise GraphError(message)
            found = match_convolution(node)
            if found is not None:
                self._add_last_layer(found, value)
            elif node.op_type == "Conv":
                message = f"int8 cannot read the convolution {name}: expected constant weights and explicit pads."
                raise GraphError(message)
            else:
                inputs = [self._add_float(each) if each is not None else "" for each in node.inputs]
                self._new.copy_node(self._old_nodes[name], inputs)
                self._floats |= {str(each.name): str(each.name) for each in node.outputs}
        return self._floats[name]

    def _add_last_layer(self, found: Convolution, value: ir.Value) -> None:
        name = str(value.name)
        small = find_before_upsampling(found.node.inputs[0])
        image = self._add_image(found.node.inputs[0] if small is None else small)
        upsampling, means = 1 if small is None else 2, self._means.get(name)
        result = name if self._loop is None else f"{name}.one"
        add_last_layer(self._integers, found, image, upsampling, value, result, self._output_range, means)
        if self._loop is not None:
            shape = read_shape(value) or ()
            self._loop.build(result, tuple(int(axis or 0) for axis in shape[1:]), name)
        self._floats[name] = name

    def _add_image(self, value: ir.Value | None, *, rectified: bool = False) -> QuantImage:
        """Add a value as 8-bit integers, with negative ones as 0 if it is to be rectified."""
        if value is None or value.name is None:
            message = "a layer has no input"
            raise GraphError(message)
        node = value.producer()
        if node is not None and node.op_type == "Relu":
            return self._add_image(node.inputs[0], rectified=True)
        key = value.name, rectified
        if key not in self._images:
            self._images[key] = self._add_layer(value, node, rectified=rectified)
        return self._images[key]

    def _add_layer(self, value: ir.Value, node: ir.Node | None, *, rectified: bool) -> QuantImage:
        shape = read_shape(value)
        if node is None or shape is None or len(shape) != 4 or None in shape[1:]:
            message = f"int8 needs images of known size, but {value.name} has the shape {value.shape}"
            raise GraphError(message)
        found, affine = match_convolution(node), match_batch_norm(node)
        layer = match_linear_layer(_find_producer(node.inputs[0])) if node.op_type == "Reshape" else None
        is_slice, conditional = takes_first_channels(node), match_conditional_norm(node)
        if found is None and affine is None and layer is None and not is_slice and node.op_type != "Add":
            message = (
                f"int8 has no form for {node.op_type} ({value.name}): it knows linear layers, convolutions, batch "
                "norms, sums, the first channels, Relu and nearest upsampling by 2. Export it in float32 or float16."
            )
            raise GraphError(message)
        channels, height, width = (int(axis or 0) for axis in shape[1:])
        name = f"{value.name}.{'rectified' if rectified else 'u8'}"
        if is_slice:
            return self._add_first_channels(self._add_image(node.inputs[0], rectified=rectified), channels, name)
        output = QuantImage(
            name=name,
            params=self._fit_params(value, rectified=rectified),
            height=height,
            width=width,
            channels=channels,
        )
        is_layer = found is not None or conditional is not None or layer is not None
        if is_layer and rectified and any(user.op_type != "Relu" for user in value.consumers()):
            whole = self._add_image(value)
            zero = self._integers.add_constant(np.uint8(whole.params.zero_point), f"{output.name}.least")
            self._integers.add_node("Clip", [whole.name, zero], output.name, output.shape)
            return replace(output, params=whole.params)
        if found is not None:
            self._add_convolution(found, output)
        elif layer is not None:
            self._add_first_image(layer, output)
        elif affine is not None:
            self._add_batch_norm(affine, self._add_image(node.inputs[0]), output)
        elif conditional is not None:
            return self._add_conditional(conditional, output, rectified=rectified)
        else:
            self._add_sum(node, output)
        return output

    def _fit_params(self, value: ir.Value, *, rectified: bool) -> QuantParams:
        low, high = self._ranges[str(value.name)]
        return fit_quant_params(0.0 if rectified else low, high)

    def _add_first_image(self, layer: LinearLayer, output: QuantImage) -> None:
        """Add a linear layer of 8-bit integers, with its outputs reordered to channels last."""
        n_outputs, (height, width, channels) = len(layer.weight), output.shape
        order = np.arange(n_outputs).reshape(channels, height, width).transpose(1, 2, 0).ravel()
        source = _require(layer.node.inputs[0])
        low, high = (_LINEAR_MARGIN * each for each in self._ranges[str(source.name)])
        n_inputs, params = layer.weight.shape[1], fit_quant_params(low, high)
        vector = QuantImage(name=f"{output.name}.condition", params=params, height=1, width=1, channels=n_inputs)
        inputs = [self._conditions.add(source), *self._new.add_params(params, vector.name)]
        self._new.add_node("QuantizeLinear", inputs, vector.name, [n_inputs])
        flat = replace(output, name=f"{output.name}.flat")
        self._new.add_linear_layer(vector, layer.weight[order], layer.bias[order], flat)
        if self._loop is None:
            self._new.add_reshape(flat.name, output.shape, output.name)
        else:
            self._loop.take_images(self._new.add_reshape(flat.name, output.shape, f"{output.name}.images"), output)

    def _add_batch_norm(
        self, affine: ChannelAffine, image: QuantImage, output: QuantImage, factors: VaryingAffine | None = None
    ) -> None:
        """Add a batch norm that was not folded as a depthwise convolution."""
        weight = affine.factor.astype(np.float32).reshape(-1, 1, 1, 1)
        weights = BlockWeights(weight=weight, pads=(0, 0, 0, 0), strides=(1, 1))
        scale = self._convolutions.find_scaling(factors)
        self._integers.add_convolution(
            image, weights, affine.offset, output, groups=output.channels, scale_weights=scale
        )

    def _add_first_channels(self, image: QuantImage, channels: int, name: str) -> QuantImage:
        """Add the first channels of an image."""
        output = replace(image, name=name, channels=channels)
        self._integers.add_slice(image.name, 0, channels, name, output.shape)
        return output

    def _add_conditional(self, affine: ConditionalNorm, output: QuantImage, *, rectified: bool) -> QuantImage:
        """Add factor and offset: with the convolution before them, or else as a depthwise convolution."""
        if self._loop is None:
            message = "a graph with conditions has no loop over its images"
            raise GraphError(message)
        names = VaryingAffine(
            factor=self._add_vector(affine.factor), offset=self._add_vector(affine.offset), channels=output.channels
        )
        lowest, highest = self._ranges[str(affine.offset.name)]
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        low, high = self._ranges[str(affine.product.outputs[0].name)]
        # One step for the sum and both operands makes the sum exact.
        params, offset_params = fit_quant_params(low, high), self._fit_params(affine.offset, rectified=False)
        if rectified:
            # What is less than minus the largest offset becomes 0.
            params = fit_quant_params(-highest, high)
            offset_params = QuantParams(scale=params.scale, zero_point=255 - params.zero_point)
            output = replace(output, params=QuantParams(scale=params.scale, zero_point=0))
        finest, add_offset = params.scale, self._loop.add_offset
        if rectified and highest - lowest <= _MAX_COARSENING * 255 * finest:
            # The sum of the levels of both operands must not pass 255: level 0 of the product is minus the largest
            # offset, and level 0 of the offsets the smallest one.
            wide = fit_quant_params(lowest - 2 * highest, high)
            params, offset_params = (
                QuantParams(scale=wide.scale, zero_point=round(each / wide.scale)) for each in (highest, -lowest)
            )
            zero_point = params.zero_point + offset_params.zero_point
            output = replace(output, params=QuantParams(scale=wide.scale, zero_point=zero_point))
            add_offset = self._loop.add_rectified_offset
        product = replace(output, name=f"{output.name}.product", params=params)
        self._add_product(affine.image, names, product)
        add_offset(names, product, offset_params, output)
        return output

    def _add_vector(self, value: ir.Value) -> str:
        """Add a value of float32 (n, channels, 1, 1) as (n, channels)."""
        node, name = value.producer(), f"{value.name}.vector"
        if node is not None and node.op_type == "Unsqueeze" and len(read_shape(node.inputs[0]) or ()) == 2:
            return self._conditions.add(_require(node.inputs[0]))
        if name not in self._floats:
            channels = (read_shape(value) or ())[1] or 0
            self._floats[name] = self._new.add_reshape(self._conditions.add(value), [channels], name, "float32")
        return self._floats[name]

    def _add_product(self, value: ir.Value, affine: VaryingAffine, product: QuantImage) -> None:
        """Multiply an image by the factor: in the convolution or the batch norm that makes it, or a depthwise one."""
        node = value.producer() if find_only_user(value) is not None else None
        found, before = match_convolution(node), None if node is None else match_batch_norm(node)
        if found is not None:
            self._convolutions.factors[str(value.name)] = affine
            self._add_convolution(found, product)
        elif node is not None and before is not None:
            self._add_batch_norm(before, self._add_image(node.inputs[0]), product, affine)
        else:
            channels = product.channels
            same = ChannelAffine(factor=np.ones(channels), offset=np.zeros(channels), is_invertible=True)
            self._add_batch_norm(same, self._add_image(value), product, affine)

    def _add_convolution(self, found: Convolution, output: QuantImage) -> None:
        small = find_before_upsampling(found.node.inputs[0])
        image = self._add_image(found.node.inputs[0] if small is None else small)
        self._convolutions.add(found, image, output, is_upsampled=small is not None)

    def _add_sum(self, node: ir.Node, output: QuantImage) -> None:
        """Add two images, one of which may be upsampled."""
        first, second = (_require(each) for each in node.inputs)
        if find_before_upsampling(first) is not None:
            first, second = second, first
        left, small = self._add_image(first), find_before_upsampling(second)
        if small is None:
            self._integers.add_sum(left, self._add_image(second), output.params, output.name, output.shape)
            return
        shape = output.height // 2, 2, output.width * output.channels
        name = f"{output.name}.pairs"
        rows = replace(left, name=self._integers.add_reshape(left.name, shape, f"{name}.left"))
        if str(small.name) not in self._wide:
            self._wide[str(small.name)] = self._double_columns(small)
        wide = self._wide[str(small.name)]
        row = replace(wide, name=self._integers.add_reshape(wide.name, (shape[0], 1, shape[2]), f"{name}.right"))
        self._integers.add_sum(rows, row, output.params, name, shape)
        self._integers.add_reshape(name, output.shape, output.name)

    def _double_columns(self, value: ir.Value) -> QuantImage:
        """Add an image with each column twice, as adjacent channels."""
        shape, found, name = read_shape(value), match_convolution(value.producer()), f"{value.name}.wide"
        if found is not None and shape is not None and find_only_user(value) is not None and found.is_plain:
            channels, height, width = (int(axis or 0) for axis in shape[1:])
            params = self._fit_params(value, rectified=False)
            output = QuantImage(name=name, params=params, height=height, width=width, channels=2 * channels)
            if find_before_upsampling(found.node.inputs[0]) is None:
                # A convolution with twice the channels is cheaper than a copy.
                twice = BlockWeights(weight=np.tile(found.weight, (2, 1, 1, 1)), pads=found.pads, strides=(1, 1))
                self._convolutions.convolve(found, self._add_image(found.node.inputs[0]), twice, output)
                return output
        image = self._add_image(value)
        output = replace(image, name=name, channels=2 * image.channels)
        self._integers.add_node("Concat", [image.name, image.name], name, output.shape, axis=3)
        return output


def _find_producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _require(value: ir.Value | None) -> ir.Value:
    if value is None:
        message = "a layer lacks an input"
        raise GraphError(message)
    return value
