"""Find values whose pixels are linear in the channels of another image: choices of channels, and pointwise layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from export.graph.nodes import find_unshared_producer, match_convolution, read_shape, takes_first_channels

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from export.graph.nodes import Convolution

__all__ = ["ChannelMap", "find_channel_map"]


@dataclass(frozen=True, kw_only=True)
class ChannelMap:
    """A matrix and a bias that map each pixel's channels of an image.

    Attributes
    ----------
    image : ir.Value
    weight : ndarray of float32, shape (out, in)
    bias : ndarray of float32, shape (out,)
    """

    image: ir.Value
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def find_channel_map(value: ir.Value | None) -> ChannelMap | None:
    """Find the image that a value is a map of: the first channels of one, a 1 x 1 convolution, or both in this order.

    Nothing else may use the value. A convolution may be dense, or have one filter for each channel.
    """
    found = match_convolution(find_unshared_producer(value))
    if found is None:
        return _find_first_channels(value)
    weight, image = _read_matrix(found), found.node.inputs[0]
    if weight is None or image is None:
        return None
    first = _find_first_channels(image)
    if first is not None:
        image, weight = first.image, weight @ first.weight
    return ChannelMap(image=image, weight=weight, bias=found.bias)


def _read_matrix(found: Convolution) -> NDArray[np.float32] | None:
    """Read the matrix of a 1 x 1 convolution; None if it is another."""
    filters = found.weight[:, :, 0, 0]
    if found.weight.shape[2:] != (1, 1) or any(found.pads) or found.strides != (1, 1):
        return None
    if found.groups == 1:
        return filters
    return np.diag(filters[:, 0]) if filters.shape == (found.groups, 1) else None


def _find_first_channels(value: ir.Value | None) -> ChannelMap | None:
    node = find_unshared_producer(value)
    if value is None or node is None or not takes_first_channels(node):
        return None
    image = node.inputs[0]
    n_out, n_in = ((read_shape(each) or (None, None))[1] for each in (value, image))
    if image is None or n_out is None or n_in is None:
        return None
    return ChannelMap(image=image, weight=np.eye(n_out, n_in, dtype=np.float32), bias=np.zeros(n_out, np.float32))
