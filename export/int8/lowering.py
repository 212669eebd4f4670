"""A simplified float32 graph in unsigned 8-bit integers with channels last, from the first image to the last layer.

Between layers a value is uint8 (n, height, width, channels) and never anything else: no layer takes it apart, turns it
round or makes it float. The operators are those of ONNX Runtime that take this layout (``com.microsoft``:
QLinearConv with channels_last, QLinearAdd), which is what its optimiser makes of quantise and dequantise nodes where it
succeeds. So such a graph is for the CPU.

- ``Relu`` costs nothing: it is a zero point of 0 in the layer before.
- ``Conv`` of a doubled image: phases as in `export.graph.phase_convolutions`. Two columns as channels already are, in this
  layout, two columns beside each other, and rows are put together by copying whole ones.
- ``Conv`` with sixteen channels or fewer gives four columns at once, for the same reason: the kernel works on 64.
- ``Add`` with a doubled image takes the small one: columns doubled as channels, rows by broadcasting.
- ``BatchNormalization`` that could not be folded is a convolution of each channel with itself.
- The last convolution, whose result leaves the integers, is given as the sum of four 8-bit segments of its range, 1021
  levels in all, which one matrix product adds up in float32 (`export.int8.last_layer`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx_ir as ir

from export.errors import GraphError
from export.graph.batch_norms import ChannelAffine, match_batch_norm
from export.graph.block_weights import BlockWeights, build_block_weights
from export.graph.nodes import (
    Convolution,
    find_before_upsampling,
    find_only_user,
    match_convolution,
    match_linear_layer,
    read_shape,
)
from export.graph.phase_convolutions import build_phase_weights
from export.int8.builder import GraphBuilder
from export.int8.last_layer import OutputRange, add_last_layer
from export.int8.weights import QuantParams, fit_quant_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from export.int8.calibration import Means, Ranges
    from export.int8.weights import WeightBits

__all__ = ["OutputRange", "quantize_graph"]

_FEW_CHANNELS: Final = 16
_COLUMNS_AT_ONCE: Final = 4
_ENOUGH_CHANNELS: Final = 64
"""Output channels with which the kernel is busy."""


def quantize_graph(
    model: onnx.ModelProto, ranges: Ranges, head: OutputRange, bits: WeightBits = 7, means: Means | None = None
) -> onnx.ModelProto:
    """Turn a simplified graph into one of 8-bit integers.

    Parameters
    ----------
    model : onnx.ModelProto
        See `export.graph.compiler.simplified`.
    ranges : Ranges
        Of its values, see `export.int8.calibration`.
    head : HeadRange
        Where the result of the last convolution matters.
    bits : {7, 8}
        Of the weights, see `export.int8.weights.integer_weights`.
    means : Means, optional
        Of what its convolutions take, to correct their biases.

    Raises
    ------
    GraphError
        If the graph holds an operator that has no form here.
    """
    return _Lowering(model, ranges, head, bits, means or {}).model()


@dataclass(frozen=True, kw_only=True)
class _Image:
    """A value of the new graph: uint8 (n, height, width, channels)."""

    name: str
    levels: QuantParams
    height: int
    width: int
    channels: int


class _Lowering:
    """The new graph, made from its end to its beginning."""

    def __init__(
        self, model: onnx.ModelProto, ranges: Ranges, head: OutputRange, bits: WeightBits, means: Means
    ) -> None:
        self._old = ir.from_proto(model)
        self._old_nodes = {node.output[0]: node for node in model.graph.node}
        self._old_constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._ranges, self._head, self._bits, self._means = ranges, head, bits, means
        (opset,) = (each.version for each in model.opset_import if each.domain == "")
        self._new = GraphBuilder(model.graph.input, model.graph.output, opset)
        self._floats: dict[str, str] = {value.name: value.name for value in model.graph.input}
        self._images: dict[tuple[str, bool], _Image] = {}
        self._wide: dict[str, _Image] = {}

    def model(self) -> onnx.ModelProto:
        for output in self._old.graph.outputs:
            self._as_float(output)
        return self._new.model("generator")

    def _as_float(self, value: ir.Value) -> str:
        """Give a value in float32, in the layout that it has in the old graph."""
        name = str(value.name)
        if name in self._old_constants:
            return self._new.constant(onnx.numpy_helper.to_array(self._old_constants[name]), name)
        if name not in self._floats:
            node = value.producer()
            if node is None:
                message = f"the value {name} comes from nowhere"
                raise GraphError(message)
            found = match_convolution(node)
            if found is not None:
                small = find_before_upsampling(node.inputs[0])
                image = self._image(node.inputs[0] if small is None else small)
                upsampling = 1 if small is None else 2
                means = self._means.get(name)
                add_last_layer(
                    self._new, found, image.name, image.levels, upsampling, value, self._head, self._bits, means
                )
            elif node.op_type == "Conv":
                message = f"int8 cannot read the convolution {name}: expected constant weights and explicit pads."
                raise GraphError(message)
            else:
                inputs = [self._as_float(each) if each is not None else "" for each in node.inputs]
                self._new.copied(self._old_nodes[name], inputs)
            self._floats[name] = name
        return self._floats[name]

    def _image(self, value: ir.Value | None, *, rectified: bool = False) -> _Image:
        """Give a value as 8-bit integers, channels last, negative ones as 0 if it is to be rectified."""
        if value is None or value.name is None:
            message = "a layer without an input"
            raise GraphError(message)
        node = value.producer()
        if node is not None and node.op_type == "Relu":
            return self._image(node.inputs[0], rectified=True)
        key = value.name, rectified
        if key not in self._images:
            self._images[key] = self._made(value, node, rectified=rectified)
        return self._images[key]

    def _made(self, value: ir.Value, node: ir.Node | None, *, rectified: bool) -> _Image:
        shape = read_shape(value)
        found = match_convolution(node)
        if node is None or shape is None or len(shape) != 4 or None in shape[1:]:
            message = f"int8 needs images of known size, but {value.name} has the shape {value.shape}"
            raise GraphError(message)
        is_first = node.op_type == "Reshape" and match_linear_layer(_producer(node.inputs[0])) is not None
        lines = match_batch_norm(node)
        if found is None and lines is None and node.op_type != "Add" and not is_first:
            message = (
                f"int8 has no form for {node.op_type} ({value.name}): it knows linear layers, convolutions, batch "
                "norms, sums, Relu and nearest doublings. Export it in float32 or float16."
            )
            raise GraphError(message)
        channels, height, width = (int(axis or 0) for axis in shape[1:])
        name = f"{value.name}.{'rectified' if rectified else 'u8'}"
        made = _Image(
            name=name, levels=self._levels(value, rectified=rectified), height=height, width=width, channels=channels
        )
        if found is not None and rectified and any(user.op_type != "Relu" for user in value.consumers()):
            whole = self._image(value)
            least = self._new.constant(np.uint8(whole.levels.zero_point), f"{name}.least")
            self._new.node("Clip", [whole.name, least], name, (height, width, channels))
            return _Image(name=name, levels=whole.levels, height=height, width=width, channels=channels)
        if found is not None:
            self._add_convolution(found, made)
        elif is_first:
            self._add_first_image(node, made)
        elif lines is not None:
            self._add_lines(lines, self._image(node.inputs[0]), made)
        else:
            self._add_sum(node, made)
        return made

    def _levels(self, value: ir.Value, *, rectified: bool) -> QuantParams:
        low, high = self._ranges[str(value.name)]
        return fit_quant_params(0.0 if rectified else low, high)

    def _add_first_image(self, node: ir.Node, made: _Image) -> None:
        """Let the linear layer give channels last at once, and quantise that."""
        layer = match_linear_layer(_producer(node.inputs[0]))
        if layer is None:
            message = "called without a linear layer"
            raise TypeError(message)
        name = str(node.outputs[0].name)
        order = np.arange(len(layer.weight)).reshape(made.channels, made.height, made.width).transpose(1, 2, 0).ravel()
        if name not in self._floats:
            flat = self._new.node(
                "Gemm",
                [
                    self._as_float(_known(layer.node.inputs[0])),
                    self._new.constant(np.ascontiguousarray(layer.weight[order]), f"{name}.weight"),
                    self._new.constant(layer.bias[order], f"{name}.bias"),
                ],
                f"{name}.flat",
                [len(order)],
                "float32",
                transB=1,
            )
            shape = made.height, made.width, made.channels
            self._floats[name] = self._new.reshaped(flat, shape, f"{name}.channels_last", "float32")
        inputs = [self._floats[name], *self._new.level_constants(made.levels, made.name)]
        self._new.node("QuantizeLinear", inputs, made.name, (made.height, made.width, made.channels))

    def _add_lines(self, lines: ChannelAffine, image: _Image, made: _Image) -> None:
        """Do what is left of a batch norm: each channel by itself, which ONNX Runtime knows as a convolution."""
        weight = lines.factor.astype(np.float32).reshape(-1, 1, 1, 1)
        weights = BlockWeights(weight=weight, pads=(0, 0, 0, 0), strides=(1, 1))
        size = made.height, made.width
        self._new.convolution(
            image.name, image.levels, weights, lines.offset, made.levels, made.name, size, self._bits, made.channels
        )

    def _add_convolution(self, found: Convolution, made: _Image) -> None:
        small = find_before_upsampling(found.node.inputs[0])
        image = self._image(found.node.inputs[0] if small is None else small)
        if small is not None and found.keeps_size:
            self._add_phases(found, image, made)
            return
        if small is not None or found.dilations != (1, 1) or found.groups != 1:
            message = (
                f"int8 has no form for the convolution {made.name}: expected one group and no dilation, and after a "
                "doubling stride 1 and an odd kernel that keeps the size."
            )
            raise GraphError(message)
        shape = made.height, made.width, made.channels
        if found.keeps_size and made.channels <= _FEW_CHANNELS and made.width % _COLUMNS_AT_ONCE == 0:
            columns = range(_COLUMNS_AT_ONCE)
            weights = build_block_weights(
                found.weight, found.pads, upsampling=1, block=(1, _COLUMNS_AT_ONCE), rows=(0,), columns=columns
            )
            wide = self._convolved(
                found, image, made, weights, f"{made.name}.columns", (made.height, made.width // _COLUMNS_AT_ONCE)
            )
            self._new.reshaped(wide, shape, made.name)
            return
        weights = BlockWeights(weight=found.weight, pads=found.pads, strides=found.strides)
        self._convolved(found, image, made, weights, made.name, shape[:2])

    def _add_phases(self, found: Convolution, image: _Image, made: _Image) -> None:
        """Convolve the small image for each row of two, and put the rows together."""
        rows = []
        size = image.height, image.width
        for row in (0, 1):
            apart = [build_phase_weights(found, (row,), (column,)) for column in (0, 1)]
            together = build_phase_weights(found, (row,), (0, 1))
            wasteful = together.weight.size > sum(each.weight.size for each in apart)
            name = f"{made.name}.row{row}"
            if wasteful and made.channels >= _ENOUGH_CHANNELS:
                columns = [
                    self._convolved(found, image, made, weights, f"{name}.column{column}", size)
                    for column, weights in enumerate(apart)
                ]
                both = self._new.node("Concat", columns, name, (*size, 2 * made.channels), axis=3)
            else:
                both = self._convolved(found, image, made, together, name, size)
            rows.append(self._new.reshaped(both, (image.height, 1, made.width * made.channels), f"{name}.flat"))
        shape = image.height, 2, made.width * made.channels
        pairs = self._new.node("Concat", rows, f"{made.name}.rows", shape, axis=2)
        self._new.reshaped(pairs, (made.height, made.width, made.channels), made.name)

    def _convolved(
        self,
        found: Convolution,
        image: _Image,
        made: _Image,
        weights: BlockWeights,
        name: str,
        size: tuple[int, int],
    ) -> str:
        """Add one convolution, its bias repeated for each pixel that it gives."""
        bias = np.tile(found.bias.astype(np.float64), len(weights.weight) // len(found.bias))
        means = self._means.get(str(found.node.outputs[0].name))
        return self._new.convolution(
            image.name, image.levels, weights, bias, made.levels, name, size, self._bits, input_means=means
        )

    def _add_sum(self, node: ir.Node, made: _Image) -> None:
        """Add two images, one of which may be a doubled one."""
        first, second = (_known(each) for each in node.inputs)
        if find_before_upsampling(first) is not None:
            first, second = second, first
        left, small = self._image(first), find_before_upsampling(second)
        if small is None:
            right = self._image(second)
            self._summed(left, right, made.levels, made.name, (made.height, made.width, made.channels))
            return
        shape = made.height // 2, 2, made.width * made.channels
        name = f"{made.name}.pairs"
        rows = replace(left, name=self._new.reshaped(left.name, shape, f"{name}.left"))
        if str(small.name) not in self._wide:
            self._wide[str(small.name)] = self._columns_doubled(small)
        wide = self._wide[str(small.name)]
        row = replace(wide, name=self._new.reshaped(wide.name, (shape[0], 1, shape[2]), f"{name}.right"))
        self._summed(rows, row, made.levels, name, shape)
        self._new.reshaped(name, (made.height, made.width, made.channels), made.name)

    def _columns_doubled(self, value: ir.Value) -> _Image:
        """Give an image with each column twice, as channels beside each other."""
        shape, found, name = read_shape(value), match_convolution(value.producer()), f"{value.name}.wide"
        if found is not None and shape is not None and find_only_user(value) is not None and found.is_plain:
            channels, height, width = (int(axis or 0) for axis in shape[1:])
            levels = self._levels(value, rectified=False)
            made = _Image(name=name, levels=levels, height=height, width=width, channels=2 * channels)
            if find_before_upsampling(found.node.inputs[0]) is None:
                # The convolution is quick with twice the channels, and no copy is needed then.
                twice = BlockWeights(weight=np.tile(found.weight, (2, 1, 1, 1)), pads=found.pads, strides=(1, 1))
                self._convolved(found, self._image(found.node.inputs[0]), made, twice, name, (height, width))
                return made
        image = self._image(value)
        wide = image.height, image.width, 2 * image.channels
        self._new.node("Concat", [image.name, image.name], name, wide, axis=3)
        return replace(image, name=name, channels=2 * image.channels)

    def _summed(self, left: _Image, right: _Image, levels: QuantParams, name: str, shape: Sequence[int]) -> None:
        inputs = [
            left.name,
            *self._new.level_constants(left.levels, f"{name}.left"),
            right.name,
            *self._new.level_constants(right.levels, f"{name}.right"),
            *self._new.level_constants(levels, name),
        ]
        self._new.node("QLinearAdd", inputs, name, shape, is_onnx=False)


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _known(value: ir.Value | None) -> ir.Value:
    if value is None:
        message = "a layer lacks an input"
        raise GraphError(message)
    return value
