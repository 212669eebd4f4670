"""Fold batch norms into the layers before them.

Matches ``BatchNormalization`` (inference) of a convolution, of a linear layer reshaped to images, or of a sum of
these. A batch norm is y = a x + b for each channel and these layers are linear, so it folds into their weights. If
other nodes use x too (the shortcut of a pre-activation block), each of them must be a pointwise convolution, possibly
of the upsampled image: its weights then take (y - b) / a. The result is exact up to rounding. If b is large compared
with a, the subtraction would cancel digits; if a is tiny, y would have few digits in float16, and 1 / a may not be
finite in float32. Such a batch norm is left as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.nodes import (
    LinearLayer,
    find_only_user,
    have_equal_shapes,
    is_upsampling,
    match_convolution,
    match_linear_layer,
    read_constant,
    read_shape,
    set_weights,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["ChannelAffine", "fold_batch_norms", "match_batch_norm"]

_MAX_CANCELLATION: Final = 16.0
"""Largest offset of a channel, in standard deviations of its normalised values, that other users may subtract."""
_MIN_STANDARD_DEVIATION: Final = 1e-4
"""Smallest standard deviation of a channel's outputs that other users may undo: the steps of float16 are 6e-8 there."""
_DEFAULT_EPSILON: Final = 1e-5


@dataclass(frozen=True, kw_only=True)
class ChannelAffine:
    """A batch norm in inference: factor times the values of a channel, plus offset.

    Attributes
    ----------
    factor, offset : ndarray of float64, shape (channels,)
    is_invertible : bool
        Whether the input can be computed from the output in every channel, without cancellation or tiny values.
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    is_invertible: bool


def fold_batch_norms(model: ir.Model) -> int:
    """Fold batch norms into the layers before them; return how many."""
    return sum(_fold(node) for node in list(model.graph) if node.op_type == "BatchNormalization")


def match_batch_norm(node: ir.Node) -> ChannelAffine | None:
    """Read a node as a batch norm in inference with constant parameters; None if it is none."""
    if node.op_type != "BatchNormalization" or node.domain != "" or len(node.outputs) > 1:
        return None
    parameters = [read_constant(each) for each in node.inputs[1:5]]
    if node.attributes.get_int("training_mode", 0):
        return None
    gamma, beta, mean, variance = (None if each is None else each.astype(np.float64) for each in parameters)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    factor = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", _DEFAULT_EPSILON))
    deviation = np.abs(gamma)
    is_invertible = bool(np.all((np.abs(beta) < _MAX_CANCELLATION * deviation) & (deviation > _MIN_STANDARD_DEVIATION)))
    return ChannelAffine(factor=factor, offset=beta - factor * mean, is_invertible=is_invertible)


def _fold(node: ir.Node) -> bool:
    affine, value = match_batch_norm(node), node.inputs[0]
    if affine is None or value is None:
        return False
    factor, offset = affine.factor, affine.offset
    layers = _find_layers(value, value)
    others = [user for user in _find_users(value) if user is not node]
    if layers is None or value.is_graph_output():
        return False
    if others and not (affine.is_invertible and all(_is_pointwise_of(user, value) for user in others)):
        return False
    for index, layer in enumerate(layers):
        _scale_outputs(layer, factor, offset if index == 0 else np.zeros_like(offset))
    for user in others:
        _invert_input(user, factor, offset)
    result = node.outputs[0]
    is_output = result.is_graph_output()
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    if is_output:
        value.name = result.name
    return True


def _find_layers(value: ir.Value, top: ir.Value) -> list[ir.Node] | None:
    """Find the linear layers whose sum a value is; None if it is no such sum, or if other nodes use a part of it."""
    node = value.producer()
    if node is None or (value is not top and find_only_user(value) is None):
        return None
    if match_convolution(node) is not None:
        return [node]
    if node.op_type == "Reshape" and node.inputs[0] is not None:
        layer = match_linear_layer(node.inputs[0].producer())
        return [layer.node] if layer is not None and _fills_channels(layer, node.outputs[0]) else None
    if node.op_type == "Add" and all(each is not None for each in node.inputs):
        parts = [_find_layers(each, top) for each in node.inputs if each is not None]
        if all(have_equal_shapes(each, value) for each in node.inputs):
            first, second = parts
            return None if first is None or second is None else first + second
    return None


def _fills_channels(layer: LinearLayer | None, images: ir.Value) -> bool:
    """Whether a linear layer's outputs, used only here, are reshaped to images channel by channel."""
    shape = read_shape(images)
    if layer is None or find_only_user(layer.node.outputs[0]) is None:
        return False
    return shape is not None and len(shape) == 4 and _product(shape[1:]) == len(layer.weight)


def _product(axes: tuple[int | None, ...]) -> int | None:
    return None if None in axes else int(np.prod([axis for axis in axes if axis is not None]))


def _find_users(value: ir.Value) -> list[ir.Node]:
    """Find the users of a value, and of its upsampled copies."""
    users: list[ir.Node] = []
    for user in value.consumers():
        if is_upsampling(user) and not user.outputs[0].is_graph_output():
            users += _find_users(user.outputs[0])
        else:
            users.append(user)
    return users


def _is_pointwise_of(user: ir.Node, value: ir.Value) -> bool:
    found = match_convolution(user)
    image = user.inputs[0]
    if found is None or not found.is_pointwise or image is None:
        return False
    return image is value or is_upsampling(image.producer())


def _scale_outputs(node: ir.Node, factor: NDArray[np.float64], offset: NDArray[np.float64]) -> None:
    """Multiply the output channels of a layer by factors, and add offsets, by its weights."""
    found, layer = match_convolution(node), match_linear_layer(node)
    if found is not None:
        set_weights(node, found.weight * factor.reshape(-1, 1, 1, 1), found.bias * factor + offset)
    elif layer is not None:
        n_pixels = len(layer.weight) // len(factor)
        row_factor = np.repeat(factor, n_pixels)
        weight = layer.weight * row_factor[:, np.newaxis]
        set_weights(
            node, weight if layer.is_transposed else weight.T, layer.bias * row_factor + np.repeat(offset, n_pixels)
        )


def _invert_input(node: ir.Node, factor: NDArray[np.float64], offset: NDArray[np.float64]) -> None:
    """Let a pointwise convolution undo a factor and an offset of its input, by its weights."""
    found = match_convolution(node)
    if found is not None:
        weight = found.weight / factor.reshape(1, -1, 1, 1)
        set_weights(node, weight, found.bias - weight[:, :, 0, 0] @ offset)
