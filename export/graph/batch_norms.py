"""Batch norms and what follows them fold into the layer before.

Matches ``BatchNormalization`` (inference) of a convolution, of a linear layer seen as images, or of a sum of such. It
becomes a change of their weights: a batch norm is y = a x + b with a number each a channel, and the layers are
linear. Where others use x too (the shortcut of a pre-activation block), each of them must be a convolution
whose pixels depend on one input pixel, possibly of the doubled image: it then takes (y - b) / a by weights of its own.
That is exact but for rounding; a channel whose offset dwarfs its factor would lose digits, so then nothing is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.nodes import (
    LinearLayer,
    find_only_user,
    have_equal_shapes,
    is_doubling,
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
"""Largest offset of a channel, in standard deviations of its normalised values, that other users may take back."""
_DEFAULT_EPSILON: Final = 1e-5


@dataclass(frozen=True, kw_only=True)
class ChannelAffine:
    """What a batch norm does in inference: factor times a channel's values, plus offset.

    Attributes
    ----------
    factor, offset : ndarray of float64, shape (channels,)
    is_invertible : bool
        Whether what went in can be had from what came out without losing digits, in every channel.
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    is_invertible: bool


def fold_batch_norms(model: ir.Model) -> int:
    """Fold batch norms into the layers before them; return how many."""
    return sum(_folded(node) for node in list(model.graph) if node.op_type == "BatchNormalization")


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
    is_invertible = bool(np.all(np.abs(beta) < _MAX_CANCELLATION * np.abs(gamma)))
    return ChannelAffine(factor=factor, offset=beta - factor * mean, is_invertible=is_invertible)


def _folded(node: ir.Node) -> bool:
    lines, value = match_batch_norm(node), node.inputs[0]
    if lines is None or value is None:
        return False
    factor, offset = lines.factor, lines.offset
    layers = _layers_before(value, value)
    others = [user for user in _users_beyond_doubling(value) if user is not node]
    if layers is None or value.is_graph_output():
        return False
    if others:
        if not all(_is_pointwise_of(user, value) for user in others):
            return False
        if not lines.is_invertible:
            return False
    for index, layer in enumerate(layers):
        _scale_outputs(layer, factor, offset if index == 0 else np.zeros_like(offset))
    for user in others:
        _take_back(user, factor, offset)
    result = node.outputs[0]
    is_given_out = result.is_graph_output()
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    if is_given_out:
        value.name = result.name
    return True


def _layers_before(value: ir.Value, top: ir.Value) -> list[ir.Node] | None:
    """Find the linear layers whose sum a value is; None if it is not such a sum, or if others use a part of it."""
    node = value.producer()
    if node is None or (value is not top and find_only_user(value) is None):
        return None
    if match_convolution(node) is not None:
        return [node]
    if node.op_type == "Reshape" and node.inputs[0] is not None:
        layer = match_linear_layer(node.inputs[0].producer())
        return [layer.node] if layer is not None and _fills_channels(layer, node.outputs[0]) else None
    if node.op_type == "Add" and all(each is not None for each in node.inputs):
        parts = [_layers_before(each, top) for each in node.inputs if each is not None]
        if all(have_equal_shapes(each, value) for each in node.inputs):
            first, second = parts
            return None if first is None or second is None else first + second
    return None


def _fills_channels(layer: LinearLayer | None, images: ir.Value) -> bool:
    """Whether a linear layer's outputs, which nothing else uses, are seen as images, whole channels one by one."""
    shape = read_shape(images)
    if layer is None or find_only_user(layer.node.outputs[0]) is None:
        return False
    return shape is not None and len(shape) == 4 and _product(shape[1:]) == len(layer.weight)


def _product(axes: tuple[int | None, ...]) -> int | None:
    return None if None in axes else int(np.prod([axis for axis in axes if axis is not None]))


def _users_beyond_doubling(value: ir.Value) -> list[ir.Node]:
    users: list[ir.Node] = []
    for user in value.consumers():
        if is_doubling(user) and not user.outputs[0].is_graph_output():
            users += _users_beyond_doubling(user.outputs[0])
        else:
            users.append(user)
    return users


def _is_pointwise_of(user: ir.Node, value: ir.Value) -> bool:
    found = match_convolution(user)
    image = user.inputs[0]
    if found is None or not found.is_pointwise or image is None:
        return False
    return image is value or is_doubling(image.producer())


def _scale_outputs(node: ir.Node, factor: NDArray[np.float64], offset: NDArray[np.float64]) -> None:
    """Make a layer give factor times what it gave, plus offset, channel by channel."""
    found, layer = match_convolution(node), match_linear_layer(node)
    if found is not None:
        set_weights(node, found.weight * factor.reshape(-1, 1, 1, 1), found.bias * factor + offset)
    elif layer is not None:
        n_pixels = len(layer.weight) // len(factor)
        of_rows = np.repeat(factor, n_pixels)
        weight = layer.weight * of_rows[:, np.newaxis]
        set_weights(
            node, weight if layer.is_transposed else weight.T, layer.bias * of_rows + np.repeat(offset, n_pixels)
        )


def _take_back(node: ir.Node, factor: NDArray[np.float64], offset: NDArray[np.float64]) -> None:
    """Make a convolution of single pixels take factor times its input plus offset in place of its input."""
    found = match_convolution(node)
    if found is not None:
        weight = found.weight / factor.reshape(1, -1, 1, 1)
        set_weights(node, weight, found.bias - weight[:, :, 0, 0] @ offset)
