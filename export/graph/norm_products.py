"""Write the conditional norms of large images as products of matrices, which are fast on a GPU.

With channels last, an image is a matrix P of pixels by channels, and a norm with the factors f and the offsets b is::

    P * f + b = P diag(f) + b

Each element of the product is a factor times a value, plus zeros: with finite values the same in float32, bit for bit.
In float16 on a GPU a few digits differ. There ONNX Runtime's product with broadcasting takes twice as long as the
product of matrices, since it divides to find the factor of each value. The sum stays, over an axis less.

Where a ReLU, a 1 x 1 convolution with the weights W and another norm follow, with the factors g and the offsets c::

    (max(P diag(f) + b, 0) W) * g + c = max(P diag(f), -b) (W diag(g)) + (b W diag(g) + c)

One maximum takes the place of a sum and a ReLU, and one product that of the convolution and the other norm's.
docs/performance.md has the times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.conditional_norms import ConditionalNorm, match_conditional_norm
from export.graph.nodes import Convolution, find_unshared_producer, match_convolution, read_shape
from export.graph.rules import TO_FIRST, TO_LAST, Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_norm_products"]

_MIN_PIXELS: Final = 32 * 96
"""Images of fewer pixels have many channels, and a matrix has the square of their number."""


@dataclass(frozen=True, kw_only=True)
class _LargeNorm:
    """A conditional norm of an image with many pixels."""

    norm: ConditionalNorm
    channels: int
    height: int
    width: int


def make_norm_products(model: ir.Model) -> int:
    """Write conditional norms of large images with products of matrices; return the number of norms."""
    n_pairs = apply_rules(model, {"Add": _write_pair})
    return 2 * n_pairs + apply_rules(model, {"Add": _write_single})


def _match_large_norm(node: ir.Node | None) -> _LargeNorm | None:
    norm = match_conditional_norm(node)
    shape = None if norm is None else read_shape(norm.image)
    if norm is None or shape is None or None in shape[1:]:
        return None
    _, channels, height, width = (each or 0 for each in shape)
    if height * width < _MIN_PIXELS:
        return None
    return _LargeNorm(norm=norm, channels=channels, height=height, width=width)


def _write_single(write: Writer, node: ir.Node) -> ir.Value | None:
    found = _match_large_norm(node)
    if found is None:
        return None
    product = _multiply(write, found, "factor")
    offset = _see_rows(write, found.norm.offset, found.channels, "offset")
    return _see_image(write, write.node("Add", [product, offset]), found)


def _write_pair(write: Writer, node: ir.Node) -> ir.Value | None:
    """Write two norms with a ReLU and a 1 x 1 convolution between them, which nothing else uses."""
    after = _match_large_norm(node)
    convolution = None if after is None else _match_only_pointwise(after.norm.image)
    relu = None if convolution is None else find_unshared_producer(convolution.node.inputs[0])
    before = None
    if relu is not None and relu.op_type == "Relu" and relu.domain == "":
        before = _match_large_norm(find_unshared_producer(relu.inputs[0]))
    if after is None or convolution is None or before is None:
        return None
    offset = _see_rows(write, before.norm.offset, before.channels, "first.offset")
    factor, shift = (
        _see_rows(write, vector, after.channels, suffix)
        for suffix, vector in (("factor", after.norm.factor), ("offset", after.norm.offset))
    )
    kept = write.node("Max", [_multiply(write, before, "first.factor"), write.node("Neg", [offset])])
    weight = write.constant(convolution.weight[np.newaxis, :, :, 0, 0].transpose(0, 2, 1), "weight")
    matrix = write.node("Mul", [weight, factor])
    if convolution.bias.any():
        bias = write.constant(convolution.bias[np.newaxis, np.newaxis], "bias")
        shift = write.node("Add", [shift, write.node("Mul", [bias, factor])])
    moved = write.node("Add", [write.node("MatMul", [offset, matrix]), shift])
    total = write.node("Add", [write.node("MatMul", [kept, matrix]), moved])
    return _see_image(write, total, after)


def _match_only_pointwise(image: ir.Value) -> Convolution | None:
    """Match a 1 x 1 convolution whose result has one user."""
    found = match_convolution(find_unshared_producer(image))
    return found if found is not None and found.is_pointwise else None


def _multiply(write: Writer, found: _LargeNorm, suffix: str) -> ir.Value:
    """Multiply pixels, (n, pixels, channels), by the factors of their channels as a diagonal matrix."""
    last = write.node("Transpose", [found.norm.image], perm=TO_LAST)
    pixels = write.reshape(last, f"{suffix}.pixels", [-1, found.height * found.width, found.channels])
    identity = write.constant(np.eye(found.channels, dtype=np.float32)[np.newaxis], f"{suffix}.identity")
    factor = _see_rows(write, found.norm.factor, found.channels, suffix)
    return write.node("MatMul", [pixels, write.node("Mul", [identity, factor])])


def _see_rows(write: Writer, vector: ir.Value, channels: int, suffix: str) -> ir.Value:
    """See the vectors of a norm as (n, 1, channels)."""
    return write.reshape(vector, f"{suffix}.rows", [-1, 1, channels])


def _see_image(write: Writer, pixels: ir.Value, found: _LargeNorm) -> ir.Value:
    """See pixels, (n, pixels, channels), as images with channels first."""
    image = write.reshape(pixels, "image", [-1, found.height, found.width, found.channels])
    return write.node("Transpose", [image], perm=TO_FIRST)
