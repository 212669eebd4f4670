"""Forms of an 8-bit convolution with channels last.

- Of an upsampled image: phases as in `export.graph.phase_convolutions`. In this layout two columns as channels are two
  adjacent columns, and rows are interleaved by copying whole rows.
- With sixteen channels or fewer: two columns at once, since the kernel computes 64 channels at a time and loses most
  with the fewest; not in a loop over images, where it was no faster.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from export.errors import GraphError
from export.graph.block_weights import BlockWeights, build_block_weights
from export.graph.phase_convolutions import build_phase_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from export.graph.nodes import Convolution
    from export.int8.builder import GraphBuilder, QuantImage
    from export.int8.calibration import Means
    from export.int8.image_loop import ImageLoop, VaryingAffine

__all__ = ["Convolutions"]

_FEW_CHANNELS: Final = 16
_COLUMNS_AT_ONCE: Final = 2


class Convolutions:
    """Adds convolutions to a graph.

    Parameters
    ----------
    graph : GraphBuilder
        The whole graph, or the body of its loop.
    loop : ImageLoop or None
    means : Means
        Means of their inputs, to correct their biases.

    Attributes
    ----------
    factors : dict of str to VaryingAffine
        What multiplies the output of a convolution, by its name in the float32 graph, set before it is added.
    """

    def __init__(self, graph: GraphBuilder, loop: ImageLoop | None, means: Means) -> None:
        self._graph, self._loop, self._means = graph, loop, means
        self.factors: dict[str, VaryingAffine] = {}

    def add(self, found: Convolution, image: QuantImage, output: QuantImage, *, is_upsampled: bool) -> None:
        """Add a convolution in the form that suits it; if its input is upsampled, the image is the small one."""
        if is_upsampled and found.keeps_size:
            self._add_phases(found, image, output)
        elif is_upsampled or found.dilations != (1, 1) or found.groups not in {1, output.channels}:
            message = (
                f"int8 has no form for the convolution {output.name}: expected one group, or one for each channel, and "
                "no dilation, and after an upsampling one group, stride 1 and an odd kernel that keeps the size."
            )
            raise GraphError(message)
        elif self._takes_columns(found, output):
            columns = range(_COLUMNS_AT_ONCE)
            weights = build_block_weights(
                found.weight, found.pads, upsampling=1, block=(1, _COLUMNS_AT_ONCE), rows=(0,), columns=columns
            )
            wide = replace(output, name=f"{output.name}.columns", width=output.width // _COLUMNS_AT_ONCE)
            self._graph.add_reshape(self.convolve(found, image, weights, wide), output.shape, output.name)
        else:
            weights = BlockWeights(weight=found.weight, pads=found.pads, strides=found.strides)
            self.convolve(found, image, weights, output)

    def _takes_columns(self, found: Convolution, output: QuantImage) -> bool:
        """Whether computing several columns at once is faster."""
        if not found.keeps_size or output.channels > _FEW_CHANNELS or output.width % _COLUMNS_AT_ONCE:
            return False
        return self._loop is None

    def _add_phases(self, found: Convolution, image: QuantImage, output: QuantImage) -> None:
        """Convolve the small image for each of two output rows, and interleave the rows."""
        rows = []
        for row in (0, 1):
            phase = replace(output, name=f"{output.name}.row{row}", height=image.height, width=image.width)
            aligned, shifted = (build_phase_weights(found, (row,), columns) for columns in ((0, 1), (-1, 0)))
            if shifted.weight.size < aligned.weight.size:
                rows.append(self._add_shifted_row(found, image, shifted, phase))
            else:
                both = self.convolve(found, image, aligned, phase)
                flat = image.height, 1, output.width * output.channels
                rows.append(self._graph.add_reshape(both, flat, f"{phase.name}.flat"))
        shape = image.height, 2, output.width * output.channels
        pairs = self._graph.add_node("Concat", rows, f"{output.name}.rows", shape, axis=2)
        self._graph.add_reshape(pairs, output.shape, output.name)

    def _add_shifted_row(self, found: Convolution, image: QuantImage, weights: BlockWeights, phase: QuantImage) -> str:
        """Convolve the small image for one of two output rows, with the columns 2 j - 1 and 2 j as channels.

        Both depend on the same two columns of the small image if the kernel has three, so that no product is of a zero.
        Of one column more than the image has, the first half and the last one are cut off.
        """
        top, left, bottom, right = weights.pads
        weights = replace(weights, pads=(top, left, bottom, right + 1))
        wide = replace(phase, width=image.width + 1)
        both = self.convolve(found, image, weights, wide)
        shape = image.height, 1, 2 * wide.width * phase.channels
        flat = self._graph.add_reshape(both, shape, f"{phase.name}.flat")
        n_wanted = 2 * image.width * phase.channels
        end = phase.channels + n_wanted
        return self._graph.add_slice(flat, phase.channels, end, f"{phase.name}.inner", (image.height, 1, n_wanted))

    def convolve(self, found: Convolution, image: QuantImage, weights: BlockWeights, output: QuantImage) -> str:
        """Add one convolution, with the bias repeated for each pixel of a block."""
        bias = np.tile(found.bias.astype(np.float64), len(weights.weight) // len(found.bias))
        means = self._means.get(str(found.node.outputs[0].name)) if found.groups == 1 else None
        scale = self.find_scaling(self.factors.get(str(found.node.outputs[0].name)))
        return self._graph.add_convolution(
            image, weights, bias, output, groups=found.groups, input_means=means, scale_weights=scale
        )

    def find_scaling(self, factors: VaryingAffine | None) -> Callable[[NDArray[np.float32], str], str] | None:
        """Find what multiplies the weight scales by factors."""
        return None if factors is None or self._loop is None else functools.partial(self._loop.scale_weights, factors)
