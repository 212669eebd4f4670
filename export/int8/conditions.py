"""Match batch norms whose factor and offset depend on the condition of an image (the sensor and the latents)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from export.graph.nodes import read_constant, read_shape

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ConditionalAffine", "match_channel_slice", "match_conditional_affine"]


@dataclass(frozen=True, kw_only=True)
class ConditionalAffine:
    """Factor times the values of a channel, plus offset; both differ from image to image.

    Attributes
    ----------
    image : ir.Value
        Float32 (n, channels, height, width).
    product : ir.Value
        Factor times image.
    factor, offset : ir.Value
        Float32 (n, channels, 1, 1).
    """

    image: ir.Value
    product: ir.Value
    factor: ir.Value
    offset: ir.Value


def match_conditional_affine(node: ir.Node | None) -> ConditionalAffine | None:
    """Match ``Add(Mul(image, factor), offset)``, in any order of the operands; None if the node is another."""
    if node is None or node.op_type != "Add" or node.domain != "":
        return None
    for product, offset in permutations(node.inputs):
        multiply = None if product is None else product.producer()
        if product is None or offset is None or multiply is None or multiply.op_type != "Mul":
            continue
        for image, factor in permutations(multiply.inputs):
            if image is not None and factor is not None and _is_per_channel(factor, image):
                return (
                    ConditionalAffine(image=image, product=product, factor=factor, offset=offset)
                    if _is_per_channel(offset, image)
                    else None
                )
    return None


def _is_per_channel(value: ir.Value, image: ir.Value) -> bool:
    """Whether a value has one element for each channel of each image."""
    shape, image_shape = read_shape(value), read_shape(image)
    if shape is None or image_shape is None or len(image_shape) != 4:
        return False
    return shape[0] is None and shape[1:] == (image_shape[1], 1, 1) and image_shape[2:] != (1, 1)


def match_channel_slice(node: ir.Node) -> bool:
    """Whether a node takes the first channels of images."""
    if node.op_type != "Slice" or node.domain != "" or len(node.inputs) < 4:
        return False
    starts, axes, steps = (
        None if value is None else read_constant(value)
        for value in (node.inputs[1], node.inputs[3], node.inputs[4] if len(node.inputs) > 4 else None)
    )
    if starts is None or axes is None:
        return False
    return (starts.tolist(), axes.tolist()) == ([0], [1]) and (steps is None or steps.tolist() == [1])
