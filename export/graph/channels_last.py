"""Interleave phases and add upsampled images with channels last, where ONNX Runtime's CUDA kernels are fast.

With channels last, a row of pixels is one run of memory. So a ``Concat`` of rows interleaves phases, and a sum repeats
each row of a small image by broadcasting, without writing the upsampled image. In float16 ONNX Runtime transposes
images to channels last around each convolution on a GPU; its optimiser removes those transpositions together with the
ones written here. docs/performance.md has the times on an H100.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.graph.channel_maps import find_channel_map
from export.graph.nodes import find_before_upsampling, have_equal_shapes, match_convolution, read_shape
from export.graph.rules import TO_FIRST, TO_LAST, Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["add_repeated", "find_before_interleaving", "use_channels_last"]


def use_channels_last(model: ir.Model) -> int:
    """Rewrite interleavings of convolutions, and sums with upsampled images; return their number."""
    return apply_rules(model, {"DepthToSpace": _interleave_rows, "Add": _add_upsampled})


def find_before_interleaving(image: ir.Value | None) -> ir.Value | None:
    """Find the phases of an image of 2 x 2 phases, ordered by phase and channel; None if it is no such image."""
    node = None if image is None else image.producer()
    if node is None or node.op_type != "DepthToSpace" or node.domain != "":
        return None
    order = node.attributes.get_int("blocksize", 0), node.attributes.get_string("mode", "DCR")
    return node.inputs[0] if order == (2, "DCR") else None


def add_repeated(write: Writer, phases: ir.Value, small: ir.Value, shape: tuple[int | None, ...]) -> ir.Value:
    """Add a small image to each of the four phases of an image of this shape: (n, channels, height, width)."""
    _, channels, height, width = (each or 0 for each in shape)
    addend = write.reshape(write.node("Transpose", [small], perm=TO_LAST), "small", [-1, 1, channels])
    return _add_to_view(write, phases, [-1, 4, channels], addend, [-1, height // 2, width // 2, 4 * channels])


def _add_to_view(write: Writer, image: ir.Value, view: list[int], addend: ir.Value, shape: list[int]) -> ir.Value:
    """Add a value that broadcasts to a view of an image with channels last, which has this shape."""
    seen = write.reshape(write.node("Transpose", [image], perm=TO_LAST), "view", view)
    total = write.reshape(write.node("Add", [seen, addend]), "sum", shape)
    return write.node("Transpose", [total], perm=TO_FIRST)


def _interleave_rows(write: Writer, node: ir.Node) -> ir.Value | None:
    """Interleave the phases of a convolution, of one convolution for each row."""
    phases = find_before_interleaving(node.outputs[0])
    relu = None if phases is None else phases.producer()
    is_rectified = relu is not None and relu.op_type == "Relu"
    convolved = relu.inputs[0] if relu is not None and is_rectified else phases
    found = None if convolved is None else match_convolution(convolved.producer())
    shape = read_shape(node.outputs[0])
    if found is None or found.groups != 1 or shape is None or None in shape[1:]:
        return None
    _, channels, height, width = (each or 0 for each in shape)
    rows = []
    for row, (weight, bias) in enumerate(zip(np.split(found.weight, 2), np.split(found.bias, 2), strict=True)):
        parameters = [write.constant(weight, f"row{row}.weight"), write.constant(bias, f"row{row}.bias")]
        image = write.node("Conv", [found.node.inputs[0], *parameters], found.node.attributes)
        if is_rectified:
            image = write.node("Relu", [image])
        lines = write.node("Transpose", [image], perm=TO_LAST)
        rows.append(write.reshape(lines, f"row{row}.shape", [-1, 1, width * channels]))
    pairs = write.node("Concat", rows, axis=1)
    whole = write.reshape(pairs, "shape", [-1, height, width, channels])
    return write.node("Transpose", [whole], perm=TO_FIRST)


def _add_upsampled(write: Writer, node: ir.Node) -> ir.Value | None:
    """Add an image and an upsampled one."""
    for image, other in (node.inputs, reversed(node.inputs)):
        small, shape = find_before_upsampling(other), read_shape(image)
        if image is None or small is None or shape is None or None in shape[1:] or not have_equal_shapes(image, other):
            continue
        _, channels, height, width = (each or 0 for each in shape)
        # The columns are copied and the rows broadcast, which is faster than both broadcast.
        row = write.reshape(_double_columns(write, small, channels), "row", [-1, 1, width * channels])
        return _add_to_view(write, image, [-1, 2, width * channels], row, [-1, height, width, channels])
    return None


def _double_columns(write: Writer, small: ir.Value, channels: int) -> ir.Value:
    """Write each pixel of a small image twice, with channels last, in the 1 x 1 convolution that computes it."""
    found = find_channel_map(small)
    if found is None:
        pixels = write.reshape(write.node("Transpose", [small], perm=TO_LAST), "pixels", [-1, channels])
        return write.node("Concat", [pixels, pixels], axis=1)
    weight = write.constant(np.tile(found.weight, (2, 1))[:, :, np.newaxis, np.newaxis], "columns.weight")
    bias = write.constant(np.tile(found.bias, 2), "columns.bias")
    return write.node("Transpose", [write.node("Conv", [found.image, weight, bias])], perm=TO_LAST)
