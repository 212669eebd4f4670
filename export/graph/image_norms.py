"""Compute conditional norms of a batch by one operator, for float32 on a GPU.

The n images of C channels are seen as one image of n C channels, whose batch norm has the factors and offsets of all
images: one pass over the images instead of two. docs/performance.md has the times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from export.graph.conditional_norms import match_conditional_norm
from export.graph.nodes import read_shape
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["make_batch_norms"]


def make_batch_norms(model: ir.Model) -> int:
    """Write conditional norms as batch norms; return their number."""
    return apply_rules(model, {"Add": _write_batch_norm})


def _write_batch_norm(write: Writer, node: ir.Node) -> ir.Value | None:
    norm = match_conditional_norm(node)
    shape = None if norm is None else read_shape(norm.image)
    if norm is None or shape is None or None in shape[1:]:
        return None
    channels, height, width = (each or 0 for each in shape[1:])
    image = write.reshape(norm.image, "image", [1, -1, height, width])
    factor, offset = (
        write.reshape(vector, suffix, [-1]) for vector, suffix in ((norm.factor, "factor"), (norm.offset, "offset"))
    )
    means = write.node("Sub", [factor, factor])  # zeros, as many as there are factors
    variances = write.node("Add", [means, write.constant(np.ones(1, np.float32), "one")])
    normed = write.node("BatchNormalization", [image, factor, offset, means, variances], epsilon=0.0)
    return write.reshape(normed, "images", [-1, channels, height, width])
