"""The last convolution: from 8-bit integers to a float32 image with more than 256 levels.

The output range that matters is split into four segments, or two. Each pixel has an 8-bit output for each segment,
which differ only in their bias: an output is 0 below its segment and 255 above it, so their sum is the level of the
result, 0 to 1020 or 510. A matrix product for each row of a block sums and scales them.

A level is worth up to 0.7 ADU, or 1.4 with two segments, which an image of many channels gets. If all pixels had the
same levels, charges would have one level and two levels in turn, a comb in the spectrum. So the levels of the pixels of
a block are shifted by fractions of a level, at no cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from export.errors import GraphError
from export.graph.block_weights import build_block_weights
from export.graph.nodes import read_shape
from export.int8.builder import QuantImage
from export.int8.weights import QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from export.graph.nodes import Convolution
    from export.int8.builder import GraphBuilder

__all__ = ["OutputRange", "add_last_layer"]

_SEGMENTS: Final = 4
_LEVELS_PER_SEGMENT: Final = 255
_BLOCK: Final = (2, 4)
"""Larger blocks would fill the 64 channels that the kernel computes at a time, but waste more than that gains."""
_FEW_SEGMENTS: Final = 2
"""For a full-size image of more than sixteen channels, where products cost most: levels are twice as far apart."""
_FEW_CHANNELS: Final = 16
_SHIFTS: Final = np.array([0, 5, 3, 6, 7, 2, 4, 1])
"""Shift of the levels of each pixel of a block, in eighths of a level. A pixel becomes a hit at its first level above
the threshold, so a row or a column whose levels lie higher would have fewer hits: all have the same mean."""


@dataclass(frozen=True, kw_only=True)
class OutputRange:
    """The range of the last convolution's output that matters: values beyond it become its nearer end.

    Attributes
    ----------
    low, high : float
    """

    low: float
    high: float

    @property
    def step(self) -> float:
        """Distance of two levels with four segments."""
        return (self.high - self.low) / (_SEGMENTS * _LEVELS_PER_SEGMENT)


def add_last_layer(
    graph: GraphBuilder,
    found: Convolution,
    image: QuantImage,
    upsampling: int,
    value: ir.Value,
    name: str,
    output_range: OutputRange,
    input_means: NDArray[np.float64] | None = None,
) -> None:
    """Add the last convolution, whose output is float32 (n, 1, height, width).

    Parameters
    ----------
    graph : GraphBuilder
    found : Convolution
        Convolution of one output channel.
    image : QuantImage
        Its input, before the upsampling.
    upsampling : int
        2 if the convolution is of the upsampled image, else 1.
    value : ir.Value
        Its output in the float32 graph.
    name : str
        Name of the output in the new graph.
    output_range : OutputRange
    input_means : ndarray of float64, shape (channels,), optional
        See `export.int8.weights.quantize_weights`.

    Raises
    ------
    GraphError
        If the convolution has another form.
    """
    (rows, columns), n_pixels = _BLOCK, math.prod(_BLOCK)
    n_segments = _FEW_SEGMENTS if upsampling == 1 and image.channels > _FEW_CHANNELS else _SEGMENTS
    shape = read_shape(value)
    if shape is None or None in shape[1:] or shape[1] != 1 or not found.keeps_size:
        message = f"int8 needs a last convolution of one channel that keeps the size, but {value.name} is another."
        raise GraphError(message)
    height, width = (int(axis or 0) for axis in shape[2:])
    if height % rows or width % columns:
        message = (
            f"int8 needs images of a multiple of {rows} x {columns} pixels, but {value.name} has {height} x {width}."
        )
        raise GraphError(message)
    step = output_range.step * _SEGMENTS / n_segments
    blocks = build_block_weights(
        found.weight, found.pads, upsampling=upsampling, block=(rows, columns), rows=range(rows), columns=range(columns)
    )
    weights = replace(blocks, weight=np.repeat(blocks.weight, n_segments, axis=0))
    lows = output_range.low - step * _SHIFTS / len(_SHIFTS)
    starts = lows[:, np.newaxis] + step * _LEVELS_PER_SEGMENT * np.arange(n_segments)
    segments = QuantImage(
        name=f"{name}.segments",
        params=QuantParams(scale=step, zero_point=0),
        height=height // rows,
        width=width // columns,
        channels=n_segments * n_pixels,
    )
    graph.add_convolution(image, weights, (found.bias[0] - starts).ravel(), segments, input_means=input_means)
    n_blocks = segments.height * segments.width
    flat = graph.add_reshape(segments.name, [n_blocks, segments.channels], f"{name}.flat")
    adding = np.repeat(np.eye(n_pixels, dtype=np.int8), n_segments, axis=0)
    # One product for each row of the blocks: joining rows is faster than a transposition of short runs.
    parts = []
    for row in range(rows):
        pixels = slice(row * columns, (row + 1) * columns)
        added = _add_segments(graph, flat, n_blocks, adding[:, pixels], lows[pixels], step, f"{name}.row{row}")
        shape = segments.height, 1, width
        parts.append(graph.add_reshape(added, shape, f"{name}.row{row}.image", "float32"))
    in_place = graph.add_node("Concat", parts, f"{name}.rows", (segments.height, rows, width), "float32", axis=2)
    graph.add_reshape(in_place, [1, height, width], name, "float32")


def _add_segments(
    graph: GraphBuilder,
    segments: str,
    n_blocks: int,
    adding: NDArray[np.int8],
    lows: NDArray[np.float64],
    step: float,
    name: str,
) -> str:
    """Sum the segments of some pixels, and scale them to values."""
    inputs = [
        segments,
        graph.add_constant(adding, f"{name}.adding"),
        graph.add_constant(np.float32(step), f"{name}.step"),
        graph.add_constant(np.float32(1.0), f"{name}.one"),
        "",
        "",
        graph.add_constant(lows.astype(np.float32), f"{name}.low"),
    ]
    shape = n_blocks, len(lows)
    return graph.add_node("MatMulIntegerToFloat", inputs, f"{name}.added", shape, "float32", is_onnx=False)
