"""Apply conditional norms by one operator instead of a product and a sum.

Matches ``Add(Mul(x, factor), offset)`` with a factor and an offset for each channel of each image. It becomes a
``BatchNormalization`` of all channels of all images of the batch, seen as the channels of one image::

    Reshape(BatchNormalization(Reshape(x, [1, n channels, height, width]), factor, offset, zeros, ones))

ONNX Runtime then reads and writes the image once instead of twice; seeing an image in another shape costs nothing.
The parameters are computed, so this holds for every batch size. With mean 0, variance 1 and epsilon 0 the operator
computes factor x + offset.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.graph.conditional_norms import match_conditional_norm
from export.graph.nodes import read_shape
from export.graph.rules import Writer, apply_rules

__all__ = ["apply_norms_by_image"]


def apply_norms_by_image(model: ir.Model) -> int:
    """Rewrite all conditional norms; return their number."""
    return apply_rules(model, {"Add": _rewrite})


def _rewrite(write: Writer, node: ir.Node) -> ir.Value | None:
    norm = match_conditional_norm(node)
    shape = None if norm is None else read_shape(norm.image)
    if norm is None or shape is None or None in shape[1:]:
        return None
    _, channels, height, width = (axis or 0 for axis in shape)
    flat = write.constant(np.array([-1], np.int64), "flat")
    factor, offset = (write.node("Reshape", [each, flat]) for each in (norm.factor, norm.offset))
    size = write.node("Shape", [factor])
    zeros, ones = (write.node("ConstantOfShape", [size], value=ir.tensor([number])) for number in (0.0, 1.0))
    image = write.node("Reshape", [norm.image, write.constant(np.array([1, -1, height, width]), "channels")])
    result = write.node("BatchNormalization", [image, factor, offset, zeros, ones], epsilon=0.0)
    return write.node("Reshape", [result, write.constant(np.array([-1, channels, height, width]), "images")])
