"""Queries of nodes and values: constants, shapes, layers, users; and new weights for a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "POINTWISE",
    "Convolution",
    "LinearLayer",
    "find_before_upsampling",
    "find_only_user",
    "find_unshared_producer",
    "have_equal_shapes",
    "is_upsampling",
    "make_initializer",
    "make_unique_name",
    "match_convolution",
    "match_linear_layer",
    "read_constant",
    "read_shape",
    "set_weights",
    "takes_first_channels",
]

POINTWISE: Final = frozenset({"Relu", "LeakyRelu", "Tanh", "Sigmoid", "Elu", "Softplus", "Neg", "Abs"})
"""Operators of one input that map each element by itself."""
_SCALES: Final = (1.0, 1.0, 2.0, 2.0)
_COPYING_MODES: Final = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
}
"""Coordinate and rounding modes in which nearest upsampling by 2 copies each pixel to 2 x 2 pixels."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A two-dimensional convolution with constant weights.

    Attributes
    ----------
    node : ir.Node
    weight : ndarray of float32, shape (out, in / groups, height, width)
    bias : ndarray of float32, shape (out,)
    pads : tuple of int
        Top, left, bottom, right.
    strides : tuple of int
    groups : int
    dilations : tuple of int
    """

    node: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    pads: tuple[int, int, int, int]
    strides: tuple[int, int]
    groups: int
    dilations: tuple[int, int]

    @property
    def is_plain(self) -> bool:
        """Whether stride, dilation and groups are 1."""
        return self.strides == (1, 1) and self.dilations == (1, 1) and self.groups == 1

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel depends on one input pixel, its own."""
        return self.is_plain and self.weight.shape[2:] == (1, 1) and not any(self.pads)

    @property
    def keeps_size(self) -> bool:
        """Whether it is plain, has an odd kernel, and its output is as large as its input."""
        height, width = self.weight.shape[2:]
        top, left, bottom, right = self.pads
        odd = height % 2 == 1 and width % 2 == 1
        return self.is_plain and odd and (top + bottom, left + right) == (height - 1, width - 1)


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A linear layer with constant weights.

    Attributes
    ----------
    node : ir.Node
    weight : ndarray of float32, shape (out, in)
    bias : ndarray of float32, shape (out,)
    is_transposed : bool
        Whether the node holds (out, in); else it holds (in, out).
    """

    node: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    is_transposed: bool


def read_constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Read an initializer or a constant node; None if the value is no constant."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def read_shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Read the shape of a value, with None for a dynamic axis; None if the shape is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(axis if isinstance(axis, int) else None for axis in value.shape)


def have_equal_shapes(first: ir.Value | None, second: ir.Value | None) -> bool:
    """Whether two values certainly have equal shapes: dynamic axes must have the same name."""
    if first is None or second is None or first.shape is None or second.shape is None:
        return False
    named = all(isinstance(axis, int) or axis.value is not None for axis in first.shape)
    return named and first.shape == second.shape


def match_convolution(node: ir.Node | None) -> Convolution | None:
    """Match a convolution of images with constant weights; None if the node is another."""
    if node is None or node.op_type != "Conv" or node.domain != "":
        return None
    weight = read_constant(node.inputs[1])
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = read_constant(node.inputs[2]) if has_bias else None
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32 or (has_bias and bias is None):
        return None
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return None
    top, left, bottom, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
    return Convolution(
        node=node,
        weight=weight.astype(np.float32, copy=False),
        bias=np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32, copy=False),
        pads=(top, left, bottom, right),
        strides=_read_pair(node, "strides"),
        groups=node.attributes.get_int("group", 1),
        dilations=_read_pair(node, "dilations"),
    )


def match_linear_layer(node: ir.Node | None) -> LinearLayer | None:
    """Match a linear layer with constant weights; None if the node is another."""
    if node is None or node.op_type != "Gemm" or node.domain != "":
        return None
    attributes = node.attributes
    if (attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0)) != (1.0, 1.0):
        return None
    weight = read_constant(node.inputs[1])
    if attributes.get_int("transA", 0) or weight is None or weight.dtype != np.float32:
        return None
    is_transposed = bool(attributes.get_int("transB", 0))
    weight = weight if is_transposed else weight.T
    has_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    bias = read_constant(node.inputs[2]) if has_bias else np.zeros(len(weight), np.float32)
    if bias is None or bias.shape != weight.shape[:1]:
        return None
    return LinearLayer(
        node=node,
        weight=weight.astype(np.float32, copy=False),
        bias=bias.astype(np.float32, copy=False),
        is_transposed=is_transposed,
    )


def is_upsampling(node: ir.Node | None) -> bool:
    """Whether a node is a nearest upsampling by 2, which copies each pixel to 2 x 2 pixels."""
    if node is None or node.op_type != "Resize" or node.domain != "" or len(node.inputs) < 3:
        return False
    scales = read_constant(node.inputs[2])
    if scales is None or tuple(float(each) for each in scales) != _SCALES or "axes" in node.attributes:
        return False
    modes = (
        node.attributes.get_string("coordinate_transformation_mode", "half_pixel"),
        node.attributes.get_string("nearest_mode", "round_prefer_floor"),
    )
    return node.attributes.get_string("mode", "nearest") == "nearest" and modes in _COPYING_MODES


def takes_first_channels(node: ir.Node | None) -> bool:
    """Whether a node takes the first channels of images."""
    if node is None or node.op_type != "Slice" or node.domain != "" or len(node.inputs) < 4:
        return False
    first, axes = (read_constant(each) for each in (node.inputs[1], node.inputs[3]))
    steps = read_constant(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
    return [None if each is None else each.tolist() for each in (first, axes, steps)] == [[0], [1], [1]]


def find_before_upsampling(value: ir.Value | None) -> ir.Value | None:
    """Find the image before the upsampling by 2; None if the value is not upsampled."""
    node = None if value is None else value.producer()
    return node.inputs[0] if node is not None and is_upsampling(node) else None


def find_only_user(value: ir.Value) -> ir.Node | None:
    """Find the only user of a value; None if there are several, or the value is an output of the graph."""
    users: Sequence[ir.Node] = value.consumers()
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    return users[0]


def find_unshared_producer(value: ir.Value | None) -> ir.Node | None:
    """Find the node that computes a value which has only one user; None if there is no such node."""
    return None if value is None or find_only_user(value) is None else value.producer()


def make_unique_name(node: ir.Node, suffix: str) -> str:
    """Make a unique name for a new initializer from the name of a node's output and a suffix."""
    name = f"{node.outputs[0].name}.{suffix}"
    taken = set() if node.graph is None else node.graph.initializers.keys()
    while name in taken:
        name += "+"
    return name


def set_weights(node: ir.Node, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Replace weights and bias of a layer, rounded to float32."""
    if node.graph is None:
        message = "the layer is in no graph"
        raise ValueError(message)
    node.resize_inputs(3)
    for index, values, suffix in ((1, weight, "weight"), (2, bias, "bias")):
        replacement = make_initializer(make_unique_name(node, suffix), values.astype(np.float32))
        node.graph.register_initializer(replacement)
        node.replace_input_with(index, replacement)


def make_initializer(name: str, values: NDArray[np.generic]) -> ir.Value:
    """Make an initializer that is not yet in a graph."""
    tensor = ir.tensor(np.asarray(values, order="C"), name=name)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype))


def _read_pair(node: ir.Node, attribute: str) -> tuple[int, int]:
    first, second = node.attributes.get_ints(attribute, (1, 1))
    return first, second
