"""What passes ask of nodes and values: constants, shapes, attributes with their defaults, who uses what."""

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
    "find_only_user",
    "find_undoubled",
    "have_equal_shapes",
    "is_doubling",
    "make_initializer",
    "make_unique_name",
    "match_convolution",
    "match_linear_layer",
    "read_constant",
    "read_shape",
    "set_weights",
]

POINTWISE: Final = frozenset({"Relu", "LeakyRelu", "Tanh", "Sigmoid", "Elu", "Softplus", "Neg", "Abs"})
"""Operators that map each element by itself and take nothing else."""
_DOUBLING_SCALES: Final = (1.0, 1.0, 2.0, 2.0)
_COPYING: Final = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")}
"""Coordinate and rounding modes in which doubling copies each pixel to the four below it."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A two-dimensional convolution whose weights are constants.

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
        """Whether stride and dilation are one, and there is one group."""
        return self.strides == (1, 1) and self.dilations == (1, 1) and self.groups == 1

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel depends on one input pixel, its own."""
        return self.is_plain and self.weight.shape[2:] == (1, 1) and not any(self.pads)

    @property
    def keeps_size(self) -> bool:
        """Whether it is plain, of odd size, and its output is as large as its input."""
        height, width = self.weight.shape[2:]
        top, left, bottom, right = self.pads
        odd = height % 2 == 1 and width % 2 == 1
        return self.is_plain and odd and (top + bottom, left + right) == (height - 1, width - 1)


@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    """A linear layer whose weights are constants.

    Attributes
    ----------
    node : ir.Node
    weight : ndarray of float32, shape (out, in)
    bias : ndarray of float32, shape (out,)
    is_transposed : bool
        Whether the node holds the weights as they are here; else it holds (in, out).
    """

    node: ir.Node
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    is_transposed: bool


def read_constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Give the array of an initializer or of a constant node; None if the value is not known before a run."""
    if value is None or value.is_graph_input():
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def read_shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Give a value's shape, None for an axis that is not fixed; None if nothing is known of it."""
    if value is None or value.shape is None:
        return None
    return tuple(axis if isinstance(axis, int) else None for axis in value.shape)


def have_equal_shapes(first: ir.Value | None, second: ir.Value | None) -> bool:
    """Whether two values are known to have one shape: axes that are not fixed must have one name."""
    if first is None or second is None or first.shape is None or second.shape is None:
        return False
    named = all(isinstance(axis, int) or axis.value is not None for axis in first.shape)
    return named and first.shape == second.shape


def match_convolution(node: ir.Node | None) -> Convolution | None:
    """Read a node as a convolution of images with constant weights; None if it is none."""
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
        strides=_pair(node, "strides"),
        groups=node.attributes.get_int("group", 1),
        dilations=_pair(node, "dilations"),
    )


def match_linear_layer(node: ir.Node | None) -> LinearLayer | None:
    """Read a node as a linear layer with constant weights; None if it is none."""
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


def is_doubling(node: ir.Node | None) -> bool:
    """Whether a node copies each pixel of its images to two by two pixels."""
    if node is None or node.op_type != "Resize" or node.domain != "" or len(node.inputs) < 3:
        return False
    scales = read_constant(node.inputs[2])
    if scales is None or tuple(float(each) for each in scales) != _DOUBLING_SCALES or "axes" in node.attributes:
        return False
    modes = (
        node.attributes.get_string("coordinate_transformation_mode", "half_pixel"),
        node.attributes.get_string("nearest_mode", "round_prefer_floor"),
    )
    return node.attributes.get_string("mode", "nearest") == "nearest" and modes in _COPYING


def find_undoubled(value: ir.Value | None) -> ir.Value | None:
    """Give the small image that a value is the doubled copy of; None if it is none."""
    node = None if value is None else value.producer()
    return node.inputs[0] if node is not None and is_doubling(node) else None


def find_only_user(value: ir.Value) -> ir.Node | None:
    """Give the one node that uses a value; None if there are more, or the graph gives it out."""
    users: Sequence[ir.Node] = value.consumers()
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    return users[0]


def make_unique_name(node: ir.Node, suffix: str) -> str:
    """Make a name for a new initializer that no other of the graph has: that of a node's output, and a suffix."""
    name = f"{node.outputs[0].name}.{suffix}"
    taken = set() if node.graph is None else node.graph.initializers.keys()
    while name in taken:
        name += "+"
    return name


def set_weights(node: ir.Node, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
    """Give a layer new weights and a new bias, rounded to float32."""
    if node.graph is None:
        message = "a layer outside of a graph"
        raise ValueError(message)
    node.resize_inputs(3)
    for index, values, suffix in ((1, weight, "weight"), (2, bias, "bias")):
        made = make_initializer(make_unique_name(node, suffix), values.astype(np.float32))
        node.graph.register_initializer(made)
        node.replace_input_with(index, made)


def make_initializer(name: str, values: NDArray[np.generic]) -> ir.Value:
    """Make an initializer of an array, not yet in a graph."""
    tensor = ir.tensor(np.asarray(values, order="C"), name=name)
    return ir.Value(name=name, const_value=tensor, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype))


def _pair(node: ir.Node, attribute: str) -> tuple[int, int]:
    first, second = node.attributes.get_ints(attribute, (1, 1))
    return first, second
