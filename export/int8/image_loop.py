"""Run a graph of 8-bit integers image by image, with factors and offsets of channels that differ from image to image.

An 8-bit convolution has one weight scale for each channel, for all images of a batch. So a graph with conditional
batch norms computes the factors and offsets of all images of a batch first, in float32, and then runs the integers of
each image, as the body of a ``Scan``.

- The factor multiplies the weight scales of a convolution, negative factors included.
- The offset is added to the result. It is not part of the bias: ONNX Runtime 1.21 to 1.28 ignores a bias that is no
  constant, and 1.32 is slow with one. Sum and operands have the same step, so only the offset is rounded. It is rounded
  up or down from pixel to pixel in turn, so that its mean is exact. The offsets of all norms are rounded together.
- A sum that is rectified is an ``Add`` of bytes between two ``Clip``, which takes half the time of a ``QLinearAdd``.
  It must not pass 255, so the levels of the offsets are part of the range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import TensorProto, helper

from export.int8.builder import ELEMENT_TYPES, GraphBuilder, QuantImage
from export.int8.weights import QuantParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

    from export.int8.weights import WeightBits

__all__ = ["ImageLoop", "VaryingAffine"]

_MAX_LEVEL: Final = 255
_OFFSETS_AT_ONCE: Final = 4096
"""Bytes of a repeated vector of offsets: shorter ones are added slowly."""
_STEP_OF_PIXELS: Final = 0.6180339887498949
_STEP_OF_CHANNELS: Final = 0.7548776662466927
"""Multiples of irrational numbers, without their whole part, are spread evenly."""


@dataclass(frozen=True, kw_only=True)
class VaryingAffine:
    """Factor and offset of each channel, the names of outer values of float32 (n, channels)."""

    factor: str
    offset: str
    channels: int


@dataclass(frozen=True, kw_only=True)
class _Factors:
    """Weight scales, shape (repeats * channels,), to multiply by the factors of the channels."""

    source: str
    name: str
    scales: NDArray[np.float32]
    repeats: int


@dataclass(frozen=True, kw_only=True)
class _Offsets:
    """Offsets of channels, to round to bytes (1, pixels, channels) between 0 and the level `highest`."""

    source: str
    name: str
    params: QuantParams
    highest: int
    pixels: int
    channels: int


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
        self.body = GraphBuilder(self._inputs, self._outputs, opset, bits, batch=1)
        self._factors: list[_Factors] = []
        self._offsets: list[_Offsets] = []

    def take_images(self, name: str, output: QuantImage) -> None:
        """Take an outer value, uint8 (n, height, width, channels), into the loop, image by image."""
        self.body.add_reshape(self._take(name, output.shape, "uint8"), output.shape, output.name)

    def scale_weights(self, affine: VaryingAffine, scale: NDArray[np.float32], name: str) -> str:
        """Multiply weight scales, shape (repeats * channels,), by the factors; return the name of the product."""
        repeats = scale.size // affine.channels
        self._factors.append(_Factors(source=affine.factor, name=name, scales=scale, repeats=repeats))
        return name

    def add_offset(
        self, affine: VaryingAffine, image: QuantImage, offset_params: QuantParams, output: QuantImage
    ) -> None:
        """Add the offset to an image that has been multiplied by the factor."""
        grouped, offset = self._group_pixels(affine, image, offset_params, output, _MAX_LEVEL)
        name = f"{output.name}.sum"
        added = self.body.add_sum(grouped, offset, output.params, name, grouped.shape, has_batch=False)
        self.body.add_reshape(added, output.shape, output.name)

    def add_rectified_offset(
        self, affine: VaryingAffine, image: QuantImage, offset_params: QuantParams, output: QuantImage
    ) -> None:
        """Add the offset and rectify; all steps are equal, and the zero point of the sum is that of both together."""
        body, zero_point = self.body, output.params.zero_point
        grouped, offset = self._group_pixels(affine, image, offset_params, output, zero_point)
        highest, least = (
            body.add_constant(np.uint8(each), f"level_{each}") for each in (_MAX_LEVEL - zero_point, zero_point)
        )
        value, shape = grouped.name, grouped.shape
        for operator, inputs in (("Clip", ["", highest]), ("Add", [offset.name]), ("Clip", [least])):
            name = f"{output.name}.{'sum' if operator == 'Add' else 'capped' if '' in inputs else 'rectified'}"
            value = body.add_node(operator, [value, *inputs], name, shape, has_batch=False)
        body.add_reshape(value, output.shape, output.name)

    def _group_pixels(
        self, affine: VaryingAffine, image: QuantImage, offset_params: QuantParams, output: QuantImage, highest: int
    ) -> tuple[QuantImage, QuantImage]:
        """Reshape an image to (groups, pixels, channels), and list the offsets of a group."""
        height, width, channels = output.shape
        pixels = _find_divisor(height * width, _OFFSETS_AT_ONCE // channels)
        offset = QuantImage(
            name=f"{output.name}.offset", params=offset_params, height=1, width=pixels, channels=channels
        )
        self._offsets.append(
            _Offsets(
                source=affine.offset,
                name=offset.name,
                params=offset_params,
                highest=highest,
                pixels=pixels,
                channels=channels,
            )
        )
        grouped = replace(image, name=f"{output.name}.grouped", height=height * width // pixels, width=pixels)
        self.body.add_reshape(image.name, grouped.shape, grouped.name, has_batch=False)
        return grouped, offset

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
        with self.body.before_others():
            self._take_factors()
            self._take_offsets()
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

    def _take_factors(self) -> None:
        """Multiply all weight scales by their factors, and take them into the loop."""
        factors = self._factors
        scales = np.concatenate([each.scales for each in factors]).astype(np.float32)
        joined = self._join([each.source for each in factors for _ in range(each.repeats)], scales.size, "factors")
        inputs = [joined, self._outer.add_constant(scales, "factors.numbers")]
        products = self._outer.add_node("Mul", inputs, "factors.products", [scales.size], "float32")
        sizes = self.body.add_constant(np.array([each.scales.size for each in factors]), "factors.sizes")
        taken = self._take(products, [scales.size], "float32")
        self.body.add_split(taken, sizes, [each.name for each in factors])

    def _take_offsets(self) -> None:
        """Express all offsets in levels, take them into the loop, and round them there."""
        groups: dict[tuple[int, int], list[_Offsets]] = {}
        for each in self._offsets:
            groups.setdefault((each.pixels, each.channels), []).append(each)
        ordered = [each for group in groups.values() for each in group]
        channels = [each.channels for each in ordered]
        levels = self._join([each.source for each in ordered], sum(channels), "offsets")
        operators = {
            "Mul": [1.0 / each.params.scale for each in ordered],
            "Add": [each.params.zero_point for each in ordered],
            "Max": [0.0] * len(ordered),
            "Min": [each.highest for each in ordered],
        }
        for operator, numbers in operators.items():
            constant = np.repeat(np.array(numbers), channels).astype(np.float32)
            inputs = [levels, self._outer.add_constant(constant, f"offsets.{operator}.numbers")]
            levels = self._outer.add_node(operator, inputs, f"offsets.{operator}", [constant.size], "float32")
        sizes = self.body.add_constant(np.array([len(v) * c for (_, c), v in groups.items()]), "offsets.sizes")
        names = [f"offsets.{pixels}x{channels}" for pixels, channels in groups]
        self.body.add_split(self._take(levels, [sum(channels)], "float32"), sizes, names)
        for name, ((pixels, n_channels), group) in zip(names, groups.items(), strict=True):
            self._round_offsets(name, pixels, n_channels, [each.name for each in group])

    def _round_offsets(self, value: str, pixels: int, channels: int, outputs: list[str]) -> None:
        """Round the levels of offsets, up in some pixels and down in others."""
        body = self.body
        spread = _STEP_OF_PIXELS * np.arange(pixels)[:, np.newaxis] + _STEP_OF_CHANNELS * np.arange(channels)
        moves = body.add_constant((spread % 1.0 - 0.5).astype(np.float32), f"{value}.moves")
        n, shape = len(outputs), (len(outputs), pixels, channels)
        rows = body.add_reshape(value, [n, 1, channels], f"{value}.rows", "float32", has_batch=False)
        moved = body.add_node("Add", [rows, moves], f"{value}.moved", shape, "float32", has_batch=False)
        inputs = [moved, *body.add_params(QuantParams(scale=1.0, zero_point=0), "offsets")]
        rounded = body.add_node("QuantizeLinear", inputs, f"{value}.rounded", shape, has_batch=False)
        sizes = body.add_constant(np.ones(n, np.int64), f"{value}.ones")
        body.add_split(rounded, sizes, outputs)

    def _join(self, sources: list[str], size: int, name: str) -> str:
        """Join outer vectors of float32."""
        return self._outer.add_node("Concat", sources, f"{name}.joined", [size], "float32", axis=1)


def _find_divisor(number: int, limit: int) -> int:
    """Find the largest divisor of a number up to a limit; 1 for a smaller limit."""
    return max(each for each in range(1, max(limit, 1) + 1) if number % each == 0)
