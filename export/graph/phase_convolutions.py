"""Replace a convolution of an upsampled image by convolutions of the small image, one for each phase of the output.

Matches ``Conv(Resize(x))`` with a nearest upsampling by 2, an odd kernel and pads that keep the size, and the ``Relu``
after it, if any. Each pixel of 2 x 2 output pixels (a phase) depends on the small image by a smaller kernel, whose
taps are sums of the original ones (`export.graph.block_weights`): 16 products instead of 36 for a 3 x 3 kernel, 36
instead of 100 for 5 x 5. The phases are then interleaved, in one of three forms:

- ``rows``, on a CPU: ONNX Runtime stores images in blocks of channels, where DepthToSpace would copy element by
  element. The phases are interleaved with channels last, which copies whole rows of channels; its optimiser fuses the
  transpositions into its own reordering. Each phase is a convolution of its own if one kernel for all phases of a row
  would waste products, except below 32 channels, which leave half of the kernel idle.
- ``apart``, for float32 on a GPU, whose products take most of the time: the same convolutions, and DepthToSpace.
- ``together``, for float16 on a GPU, which waits for memory: one convolution with four times the channels, whose taps
  are zeros where a phase has none, and DepthToSpace.

In float32, phases with many channels and no conditional norm are sums of terms that they share
(`export.graph.phase_terms`).
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from export.graph.block_weights import BlockWeights, build_block_weights
from export.graph.conditional_norms import match_conditional_norm
from export.graph.nodes import Convolution, find_before_upsampling, find_only_user, match_convolution, read_shape
from export.graph.phase_terms import write_sums_of_terms
from export.graph.rules import TO_FIRST, TO_LAST, Writer, apply_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from export.graph.conditional_norms import ConditionalNorm
    from export.graph.phase_terms import PhaseGrid

__all__ = ["PhaseForm", "build_phase_weights", "make_phase_convolutions", "make_phases_of_terms"]

PhaseForm = Literal["rows", "apart", "together"]
"""How the phases are computed and interleaved."""
_FEW_CHANNELS: Final = 32
_BOTH: Final = (0, 1)


def make_phase_convolutions(model: ir.Model, form: PhaseForm) -> int:
    """Rewrite convolutions of upsampled images; return their number."""
    rewrite = functools.partial(_rewrite, form=form)
    return apply_rules(model, {"Conv": rewrite, "Relu": rewrite})


def make_phases_of_terms(model: ir.Model, form: PhaseForm) -> int:
    """Rewrite those convolutions of upsampled images whose phases are cheaper as sums of terms; return their number."""
    rewrite = functools.partial(_rewrite, form=form, uses_shared_terms=True)
    return apply_rules(model, {"Conv": rewrite, "Relu": rewrite})


def build_phase_weights(found: Convolution, rows: Sequence[int], columns: Sequence[int]) -> BlockWeights:
    """Build the weights of some phases (rows and columns of 2 x 2 pixels) of a convolution after an upsampling."""
    return build_block_weights(found.weight, found.pads, upsampling=2, block=(2, 2), rows=rows, columns=columns)


def _rewrite(write: Writer, node: ir.Node, *, form: PhaseForm, uses_shared_terms: bool = False) -> ir.Value | None:
    """Rewrite a convolution, or a Relu with the convolution, and in rows the conditional norm, before it."""
    rectified = node.inputs[0] if node.op_type == "Relu" else None
    norm = match_conditional_norm(rectified.producer()) if rectified is not None and form == "rows" else None
    convolved = node.outputs[0] if node.op_type == "Conv" else rectified if norm is None else norm.image
    found = None if convolved is None else match_convolution(convolved.producer())
    if convolved is None or found is None or not found.keeps_size:
        return None
    if _find_relu(convolved, form) is not (node if node.op_type == "Relu" else None):
        return None
    small = find_before_upsampling(found.node.inputs[0])
    shape = read_shape(small)
    if small is None or shape is None or None in shape[1:]:
        return None
    terms = None
    if uses_shared_terms:
        # Terms are convolutions of `small`. If that is an upsampled image too, this pass would rewrite them again.
        has_norm = norm is not None or _has_conditional_norm(convolved)
        terms = None if has_norm or find_before_upsampling(small) else write_sums_of_terms(write, found, small)
        if terms is None:
            return None
    phases = _Phases(write, found, small, norm, terms, is_rectified=node.op_type == "Relu")
    if form != "rows":
        channels = phases.write_phases(_BOTH, _BOTH) if form == "together" else phases.write_channels()
        return write.node("DepthToSpace", [channels], blocksize=2, mode="DCR")
    height, width = (axis or 0 for axis in shape[2:])
    return (phases.write_rows if norm is None else phases.write_rows_of_norms)(height, width)


def _has_conditional_norm(convolved: ir.Value) -> bool:
    """Whether a convolution's output is multiplied by the factor of a conditional norm."""
    products = (user for user in convolved.consumers() if user.op_type == "Mul")
    totals = (total for product in products for total in product.outputs[0].consumers())
    norms = (match_conditional_norm(total) for total in totals)
    return any(norm is not None and norm.image is convolved for norm in norms)


def _find_relu(convolved: ir.Value, form: PhaseForm) -> ir.Node | None:
    """Find the Relu of a convolution, or of the conditional norm after it; None if nothing else follows."""
    follower = find_only_user(convolved)
    if follower is not None and follower.op_type == "Mul" and form == "rows":
        total = find_only_user(follower.outputs[0])
        norm = match_conditional_norm(total)
        follower = None if norm is None or norm.image is not convolved else find_only_user(norm.total.outputs[0])
    return follower if follower is not None and follower.op_type == "Relu" else None


class _Phases:
    """Writes the phases of a convolution of an upsampled image."""

    def __init__(
        self,
        write: Writer,
        found: Convolution,
        small: ir.Value,
        norm: ConditionalNorm | None,
        terms: PhaseGrid | None,
        *,
        is_rectified: bool,
    ) -> None:
        self._write, self._found, self._small, self._norm, self._terms = write, found, small, norm, terms
        self._is_rectified = is_rectified

    def write_phases(self, rows: Sequence[int], columns: Sequence[int]) -> ir.Value:
        """Write one convolution that computes some phases as channels."""
        weights = build_phase_weights(self._found, rows, columns)
        suffix = "phase" + "".join(map(str, (*rows, *columns)))
        inputs = [
            self._small,
            self._write.constant(weights.weight, f"{suffix}.weight"),
            self._write.constant(np.tile(self._found.bias, len(rows) * len(columns)), f"{suffix}.bias"),
        ]
        size = weights.weight.shape[2:]
        return self._finish(self._write.node("Conv", inputs, pads=weights.pads, kernel_shape=size))

    def _finish(self, convolved: ir.Value) -> ir.Value:
        if self._norm is not None:
            convolved = self._write.node("Mul", [convolved, self._norm.factor])
            convolved = self._write.node("Add", [convolved, self._norm.offset])
        return self._write.node("Relu", [convolved]) if self._is_rectified else convolved

    def write_channels(self) -> ir.Value:
        """Write all phases as channels, ordered by row, column and channel."""
        return self._write.node("Concat", [*self._write_row(0), *self._write_row(1)], axis=1)

    def _write_row(self, row: int) -> list[ir.Value]:
        """Write the phases of a row: both in one, if that is cheaper."""
        if self._terms is not None:
            return [self._finish(each) for each in self._terms[row]]
        if _is_row_kernel_cheaper(self._found):
            return [self.write_phases((row,), _BOTH)]
        return [self.write_phases((row,), (column,)) for column in _BOTH]

    def write_rows(self, height: int, width: int) -> ir.Value:
        """Write all phases of a small image of this size, interleaved with channels last."""
        n_channels = len(self._found.weight)
        rows = []
        for row in _BOTH:
            phases = self._write_row(row)
            both = phases[0] if len(phases) == 1 else self._write.node("Concat", phases, axis=1)
            last = self._write.node("Transpose", [both], perm=TO_LAST)
            rows.append(self._write.reshape(last, f"row{row}", [0, height, 1, 2 * width * n_channels]))
        pairs = self._write.node("Concat", rows, axis=2)
        whole = self._write.reshape(pairs, "rows", [0, 2 * height, 2 * width, n_channels])
        return self._write.node("Transpose", [whole], perm=TO_FIRST)

    def write_rows_of_norms(self, height: int, width: int) -> ir.Value:
        """Write all phases of a small image of this size, each with its norm, interleaved with channels first."""
        last = self._write.constant(np.array([4], np.int64), "last")
        rows = []
        for row in _BOTH:
            phases = [self.write_phases((row,), (column,)) for column in _BOTH]
            rows.append(
                self._write.node("Concat", [self._write.node("Unsqueeze", [each, last]) for each in phases], axis=4)
            )
        pairs = self._write.node("Concat", rows, axis=3)
        return self._write.reshape(pairs, "images", [0, len(self._found.weight), 2 * height, 2 * width])


def _is_row_kernel_cheaper(found: Convolution) -> bool:
    if len(found.weight) < _FEW_CHANNELS:
        return True
    one = replace(found, weight=found.weight[:1, :1])  # all filters and channels are alike
    n_together = sum(build_phase_weights(one, (row,), _BOTH).weight.size for row in _BOTH)
    n_apart = sum(build_phase_weights(one, (row,), (column,)).weight.size for row in _BOTH for column in _BOTH)
    return n_together <= n_apart
