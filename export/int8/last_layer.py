"""The last convolution: from 8-bit integers to a float32 image that has more than 256 levels.

The range of the result that matters is cut into four segments. Each pixel has four 8-bit outputs, one a segment,
which differ in their bias alone: below its segment an output is 0, above it 255, so that their sum is the result's
level, 0 to 1020. One matrix product adds the four and scales the sum. Four outputs for each of sixteen pixels are also the
64 channels that the kernel works on at a time, so the finer result costs next to nothing.

A level is worth up to 0.7 ADU, so that the charges of one grid of levels would have one level and two in turn, a comb in the
spectrum. The sixteen pixels of a block have grids a sixteenth of a level apart, which costs nothing either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.errors import GraphError
from export.graph.block_weights import BlockWeights, build_block_weights
from export.graph.nodes import read_shape
from export.int8.weights import QuantParams

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from export.graph.nodes import Convolution
    from export.int8.builder import GraphBuilder
    from export.int8.weights import WeightBits

__all__ = ["OutputRange", "add_last_layer"]

_SEGMENTS: Final = 4
_LEVELS_A_SEGMENT: Final = 255
_BLOCK: Final = (2, 8)
"""Sixteen pixels, wide rather than high: two rows of them are put in place by copying runs of eight."""
_GRID_ORDER: Final = np.array([0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15])
"""By how many sixteenths of a level the grid of each pixel of a block is lower: neighbours far apart."""


@dataclass(frozen=True, kw_only=True)
class OutputRange:
    """Where the result of the last convolution matters: what lies beyond is given as the nearer end.

    Attributes
    ----------
    low, high : float
    """

    low: float
    high: float

    @property
    def step(self) -> float:
        """Distance of two levels."""
        return (self.high - self.low) / (_SEGMENTS * _LEVELS_A_SEGMENT)


def add_last_layer(
    graph: GraphBuilder,
    found: Convolution,
    image: str,
    levels: QuantParams,
    upsampling: int,
    value: ir.Value,
    head: OutputRange,
    bits: WeightBits,
    input_means: NDArray[np.float64] | None = None,
) -> None:
    """Add the last convolution and name its result as it was, float32 (n, 1, height, width).

    Parameters
    ----------
    graph : GraphBuilder
    found : Convolution
        Of one output channel.
    image : str
        Its input (before the doubling), uint8 (n, height, width, channels).
    levels : Levels
        Of the input.
    upsampling : int
        2 if the convolution is of the doubled image, else 1.
    value : ir.Value
        Its result in the old graph.
    head : HeadRange
    bits : {7, 8}
    input_means : ndarray of float64, shape (channels,), optional
        See `export.int8.weights.integer_weights`.

    Raises
    ------
    GraphError
        If the convolution is not of the form that generators end in.
    """
    shape, (rows, columns) = read_shape(value), _BLOCK
    if shape is None or None in shape[1:] or shape[1] != 1 or not found.keeps_size:
        message = f"int8 needs a last convolution of one channel that keeps the size, but {value.name} is another."
        raise GraphError(message)
    height, width = (int(axis or 0) for axis in shape[2:])
    if height % rows or width % columns:
        message = (
            f"int8 needs images of a multiple of {rows} x {columns} pixels, but {value.name} has {height} x {width}."
        )
        raise GraphError(message)
    name = str(value.name)
    blocks = build_block_weights(
        found.weight, found.pads, upsampling=upsampling, block=_BLOCK, rows=range(rows), columns=range(columns)
    )
    weights = BlockWeights(weight=np.repeat(blocks.weight, _SEGMENTS, axis=0), pads=blocks.pads, strides=blocks.strides)
    n_pixels = rows * columns
    lows = head.low - head.step * _GRID_ORDER / n_pixels
    starts = lows[:, np.newaxis] + head.step * _LEVELS_A_SEGMENT * np.arange(_SEGMENTS)
    bias = (found.bias[0] - starts).ravel()
    segment = QuantParams(scale=head.step, zero_point=0)
    size = height // rows, width // columns
    integers = graph.convolution(
        image, levels, weights, bias, segment, f"{name}.segments", size, bits, input_means=input_means
    )
    flat = graph.reshaped(integers, [_SEGMENTS * n_pixels], f"{name}.flat")
    adding = np.repeat(np.eye(n_pixels, dtype=np.int8), _SEGMENTS, axis=0)
    inputs = [
        flat,
        graph.constant(adding, f"{name}.adding"),
        graph.constant(np.float32(head.step), f"{name}.step"),
        graph.constant(np.float32(1.0), f"{name}.one"),
        "",
        "",
        graph.constant(lows.astype(np.float32), f"{name}.low"),
    ]
    added = graph.node("MatMulIntegerToFloat", inputs, f"{name}.added", [n_pixels], "float32", is_onnx=False)
    apart = graph.reshaped(added, [*size, rows, columns], f"{name}.blocks", "float32")
    shape_in_place = size[0], rows, size[1], columns
    in_place = graph.node("Transpose", [apart], f"{name}.rows", shape_in_place, "float32", perm=[0, 1, 3, 2, 4])
    graph.reshaped(in_place, [1, height, width], name, "float32")
