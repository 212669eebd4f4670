"""Multiply images by the factors of conditional norms as products of matrices, which are fast on a GPU.

With channels last, an image is a matrix P of pixels by channels, and a norm with the factors f and the offsets b is::

    P * f + b = P diag(f) + b

Each element of the product is a factor times a value, plus zeros: with finite values the same in float32, bit for bit.
In float16 on a GPU a few digits differ. There ONNX Runtime's product with broadcasting takes twice as long as the
product of matrices, since it divides to find the factor of each value. The sum stays, over an axis less.
docs/performance.md has the times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.conditional_norms import match_conditional_norm
from export.graph.nodes import read_shape
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_norm_products"]

_MIN_PIXELS: Final = 32 * 96
"""Images of fewer pixels have many channels, and a matrix has the square of their number."""
_TO_LAST: Final = [0, 2, 3, 1]
_TO_FIRST: Final = [0, 3, 1, 2]


def make_norm_products(model: ir.Model) -> int:
    """Write the factors of conditional norms of large images as products of matrices; return the number of norms."""
    return apply_rules(model, {"Add": _write_product})


def _write_product(write: Writer, node: ir.Node) -> ir.Value | None:
    norm = match_conditional_norm(node)
    shape = None if norm is None else read_shape(norm.image)
    if norm is None or shape is None or None in shape[1:]:
        return None
    _, channels, height, width = (each or 0 for each in shape)
    n_pixels = height * width
    if n_pixels < _MIN_PIXELS:
        return None
    factor, offset = (
        _reshape(write, vector, [-1, 1, channels], suffix)
        for suffix, vector in (("factor.shape", norm.factor), ("offset.shape", norm.offset))
    )
    identity = write.constant(np.eye(channels, dtype=np.float32)[np.newaxis], "identity")
    last = write.node("Transpose", [norm.image], perm=_TO_LAST)
    pixels = _reshape(write, last, [-1, n_pixels, channels], "pixels.shape")
    product = write.node("MatMul", [pixels, write.node("Mul", [identity, factor])])
    total = _reshape(write, write.node("Add", [product, offset]), [-1, height, width, channels], "shape")
    return write.node("Transpose", [total], perm=_TO_FIRST)


def _reshape(write: Writer, value: ir.Value, axes: list[int], suffix: str) -> ir.Value:
    return write.node("Reshape", [value, write.constant(np.array(axes, np.int64), suffix)])
