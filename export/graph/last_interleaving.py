"""Keep the largest images in the form of their phases.

`export.graph.phase_convolutions` ends with a ``DepthToSpace`` that interleaves four phases of few channels to an image
of twice the height and width. A GPU computes convolutions of so few channels at a fraction of its speed, and the
interleaving copies every pixel. So the interleaving of the largest images moves after the work that follows:

- pointwise operators, sums with images in the same form, and factors and offsets of channels are the same on phases;
- an upsampled image has four equal phases, so a sum with one needs no upsampling: the small image is added to each;
- a convolution of few channels becomes one from all phases to all phases;
- a convolution of even stride, such as that of the last layer in blocks, becomes one of half the stride, and the
  interleaving is gone.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final

import numpy as np

from export.graph.block_weights import BlockWeights, build_block_weights, split_by_phases
from export.graph.channel_maps import find_channel_map
from export.graph.channels_last import add_repeated, find_before_interleaving
from export.graph.nodes import POINTWISE, find_before_upsampling, have_equal_shapes, match_convolution, read_shape
from export.graph.rules import TO_FIRST, TO_LAST, Writer, apply_rules_to_fixpoint

if TYPE_CHECKING:
    import onnx_ir as ir

    from export.graph.nodes import Convolution

__all__ = ["move_last_interleaving"]

_FEW_CHANNELS: Final = 16
"""From 32 channels on, four times the products cost more than a GPU gains."""
_N_PHASES: Final = 4


def move_last_interleaving(model: ir.Model) -> int:
    """Move the interleaving of the largest images; return the number of moves."""
    areas = [_measure_area(node.outputs[0]) for node in model.graph if _find_phases(node.outputs[0], 0) is not None]
    if not areas:
        return 0
    rules = {
        "Conv": functools.partial(_convolve, area=max(areas)),
        "Add": functools.partial(_combine, area=max(areas)),
        "Mul": functools.partial(_combine, area=max(areas)),
        **dict.fromkeys(sorted(POINTWISE), functools.partial(_apply, area=max(areas))),
    }
    return apply_rules_to_fixpoint(model, rules)


def _measure_area(image: ir.Value) -> int:
    return math.prod(axis or 0 for axis in (read_shape(image) or ())[2:])


def _find_phases(image: ir.Value | None, area: int) -> ir.Value | None:
    """Find the phases of an interleaved image of at least this many pixels, or None."""
    phases = find_before_interleaving(image)
    if image is None or phases is None or None in (read_shape(image) or (None,))[1:] or _measure_area(image) < area:
        return None
    return phases


def _interleave(write: Writer, phases: ir.Value) -> ir.Value:
    return write.node("DepthToSpace", [phases], blocksize=2, mode="DCR")


def _apply(write: Writer, node: ir.Node, *, area: int) -> ir.Value | None:
    phases = _find_phases(node.inputs[0], area)
    return None if phases is None else _interleave(write, write.node(node.op_type, [phases], node.attributes))


def _combine(write: Writer, node: ir.Node, *, area: int) -> ir.Value | None:
    """Add or multiply an interleaved image and another one, an upsampled one, or a value for each channel."""
    for image, other in (node.inputs, reversed(node.inputs)):
        phases = _find_phases(image, area)
        if phases is None or image is None or other is None:
            continue
        other_phases, small = _find_phases(other, area), find_before_upsampling(other)
        if other_phases is not None and have_equal_shapes(image, other):
            return _interleave(write, write.node(node.op_type, [phases, other_phases]))
        if small is not None and node.op_type == "Add" and have_equal_shapes(image, other):
            total = _convolve_both(write, phases, small)
            if total is None:
                total = add_repeated(write, phases, small, read_shape(image) or ())
            return _interleave(write, total)
        shape, other_shape = read_shape(image) or (), read_shape(other) or ()
        if len(other_shape) == 4 and other_shape[1:] == (shape[1], 1, 1):
            repeated = write.node("Concat", [other] * _N_PHASES, axis=1)
            return _interleave(write, write.node(node.op_type, [phases, repeated]))
    return None


def _convolve_both(write: Writer, phases: ir.Value, small: ir.Value) -> ir.Value | None:
    """Add a small image to each phase as further channels of the 1 x 1 convolution that computes the phases."""
    first, second = find_channel_map(phases), find_channel_map(small)
    if first is None or second is None:
        return None
    weight = np.hstack([first.weight, np.tile(second.weight, (_N_PHASES, 1))])
    last = [write.node("Transpose", [each.image], perm=TO_LAST) for each in (first, second)]
    both = write.node("Transpose", [write.node("Concat", last, axis=3)], perm=TO_FIRST)
    joined = BlockWeights(weight=weight[:, :, np.newaxis, np.newaxis], pads=(0, 0, 0, 0), strides=(1, 1))
    return _write_convolution(write, both, joined, first.bias + np.tile(second.bias, _N_PHASES))


def _convolve(write: Writer, node: ir.Node, *, area: int) -> ir.Value | None:
    phases, found = _find_phases(node.inputs[0], area), match_convolution(node)
    if phases is None or found is None:
        return None
    if found.keeps_size and found.weight.shape[1] <= _FEW_CHANNELS:
        blocks = build_block_weights(
            found.weight, found.pads, upsampling=1, block=(2, 2), rows=range(2), columns=range(2)
        )
        convolved = _write_convolution(write, phases, split_by_phases(blocks), np.tile(found.bias, _N_PHASES))
        return _interleave(write, convolved)
    if _halves_evenly(found):
        strided = BlockWeights(weight=found.weight, pads=found.pads, strides=found.strides)
        return _write_convolution(write, phases, split_by_phases(strided), found.bias)
    return None


def _halves_evenly(found: Convolution) -> bool:
    """Whether a convolution has an even stride, and its output is smaller than its input by just that."""
    top, left, bottom, right = found.pads
    (height, width), strides = found.weight.shape[2:], found.strides
    fits = (top + bottom, left + right) == (height - strides[0], width - strides[1])
    return found.groups == 1 and found.dilations == (1, 1) and not any(each % 2 for each in strides) and fits


def _write_convolution(write: Writer, image: ir.Value, weights: BlockWeights, bias: np.ndarray) -> ir.Value:
    inputs = [image, write.constant(weights.weight, "phases.weight"), write.constant(bias, "phases.bias")]
    size = weights.weight.shape[2:]
    return write.node("Conv", inputs, pads=weights.pads, strides=weights.strides, kernel_shape=size)
