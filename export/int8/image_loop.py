"""Run a graph of 8-bit integers image by image, with factors and offsets of channels that differ from image to image.

An 8-bit convolution has one weight scale for each channel, for all images of a batch. So a graph with conditional
batch norms computes the factors and offsets of all images of a batch first, in float32, and then runs the integers of
each image, as the body of a ``Scan``.

- The factor multiplies the weight scales of a convolution, negative factors included.
- The offset is added by a ``QLinearAdd``. It is not part of the bias: ONNX Runtime 1.21 to 1.28 ignores a bias that is
  no constant, and 1.32 is slow with one. Sum and operands have the same step, so only the offset is rounded. It is
  rounded up or down from pixel to pixel in turn, so that its mean is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto, helper

from export.int8.builder import ELEMENT_TYPES, GraphBuilder, QuantImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from export.int8.weights import QuantParams, WeightBits

__all__ = ["ImageLoop", "VaryingAffine"]

_OFFSETS_AT_ONCE: Final = 1024
"""Bytes of a repeated vector of offsets: shorter ones are added slowly."""
_STEP_OF_PIXELS: Final = 0.6180339887498949
_STEP_OF_CHANNELS: Final = 0.7548776662466927
"""Multiples of irrational numbers, without their whole part, are spread evenly."""


@dataclass(frozen=True, kw_only=True)
class VaryingAffine:
    """Factor and offset of each channel, the names of outer values of float32 (n, channels, 1, 1)."""

    factor: str
    offset: str
    channels: int


class _Vectors:
    """Vectors of the body, which are products of outer vectors and numbers."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.names: list[str] = []
        self.numbers: list[NDArray[np.floating]] = []

    def append(self, sources: Sequence[str], name: str, numbers: NDArray[np.floating]) -> None:
        """Append a vector: outer ones of float32 (n, channels, 1, 1) one after the other, times numbers."""
        self.sources += sources
        self.names.append(name)
        self.numbers.append(numbers)

    @property
    def sizes(self) -> list[int]:
        """Elements of each vector."""
        return [each.size for each in self.numbers]


class ImageLoop:
    """The loop over the images of a batch.

    Parameters
    ----------
    outer : GraphBuilder
        The graph that holds the loop and computes what is float32.
    opset : int
    bits : {7, 8}
        Bits of the weights.

    Attributes
    ----------
    body : GraphBuilder
        The graph of one image.
    """

    def __init__(self, outer: GraphBuilder, opset: int, bits: WeightBits) -> None:
        self._outer = outer
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._taken: list[str] = []
        self.body = GraphBuilder(self._inputs, self._outputs, opset, bits)
        self._factors, self._offsets = _Vectors(), _Vectors()

    def take_images(self, name: str, output: QuantImage) -> None:
        """Take an outer value, uint8 (n, height, width, channels), into the loop, image by image."""
        self.body.add_reshape(self._take(name, output.shape, "uint8"), output.shape, output.name)

    def scale_weights(self, affine: VaryingAffine, scale: NDArray[np.float32], name: str) -> str:
        """Multiply weight scales, shape (repeats * channels,), by the factors; return the name of the product."""
        self._factors.append([affine.factor] * (scale.size // affine.channels), name, scale)
        return name

    def add_offset(
        self, affine: VaryingAffine, image: QuantImage, offset_params: QuantParams, output: QuantImage
    ) -> None:
        """Add the offset to an image that has been multiplied by the factor."""
        height, width, channels = output.shape
        at_once = _find_divisor(height * width, _OFFSETS_AT_ONCE // channels)
        name, body = f"{output.name}.offset", self.body
        self._offsets.append([affine.offset], f"{name}.exact", np.ones(channels))
        spread = _STEP_OF_PIXELS * np.arange(at_once)[:, np.newaxis] + _STEP_OF_CHANNELS * np.arange(channels)
        moves = body.add_constant((offset_params.scale * (spread % 1.0 - 0.5)).astype(np.float32), f"{name}.moves")
        moved = body.add_node("Add", [f"{name}.exact", moves], f"{name}.moved", [channels], "float32")
        inputs = [moved, *body.add_params(offset_params, name)]
        body.add_node("QuantizeLinear", inputs, name, [channels])
        shape = height * width // at_once, at_once, channels
        grouped = replace(image, name=body.add_reshape(image.name, shape[1:], f"{output.name}.grouped"))
        offset = replace(image, name=name, params=offset_params)
        added = body.add_sum(grouped, offset, output.params, f"{output.name}.sum", shape[1:])
        body.add_reshape(added, output.shape, output.name)

    def build(self, value: str, shape: Sequence[int], output: str) -> None:
        """Add the loop to the outer graph.

        Parameters
        ----------
        value : str
            The body's result, float32 (1, ...).
        shape : sequence of int
            Its shape without the batch.
        output : str
            Name of the results of all images, float32 (n, ...).
        """
        for name, vectors in (("factors", self._factors), ("offsets", self._offsets)):
            self._take_vectors(name, vectors)
        inputs = [value, self.body.add_constant(np.array([0]), "batch_axis")]
        result = self.body.add_node("Squeeze", inputs, f"{value}.result", shape[1:], "float32")
        self._outputs.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, shape))
        body, n_inputs = self.body.build_graph("one image"), len(self._taken)
        self._outer.add_node("Scan", self._taken, output, shape, "float32", body=body, num_scan_inputs=n_inputs)

    def _take(self, name: str, shape: Sequence[int], element: str) -> str:
        """Make an outer value an input of the loop, image by image; return its name there."""
        self._taken.append(name)
        self._inputs.append(helper.make_tensor_value_info(f"{name}.one", ELEMENT_TYPES[element], shape))
        return f"{name}.one"

    def _take_vectors(self, name: str, vectors: _Vectors) -> None:
        """Join outer vectors, take them into the loop together, and split them there."""
        size = sum(vectors.sizes)
        joined = self._outer.add_node("Concat", vectors.sources, f"{name}.joined", (size, 1, 1), "float32", axis=1)
        value = self._outer.add_reshape(joined, [size], name, "float32")
        inputs = [
            value,
            self._outer.add_constant(np.concatenate(vectors.numbers).astype(np.float32), f"{name}.numbers"),
        ]
        value = self._outer.add_node("Mul", inputs, f"{name}.products", [size], "float32")
        sizes = self.body.add_constant(np.array(vectors.sizes), f"{name}.sizes")
        self.body.add_split(self._take(value, [size], "float32"), sizes, vectors.names)


def _find_divisor(number: int, limit: int) -> int:
    """Find the largest divisor of a number up to a limit; 1 for a smaller limit."""
    return max(each for each in range(1, max(limit, 1) + 1) if number % each == 0)
