"""The passes and their order. They make a graph cheaper, and its function stays the same."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import onnx_ir as ir
from onnx_ir.passes import common as common_passes

from export.graph.arithmetic import Cost, count_cost
from export.graph.batch_norms import fold_batch_norms
from export.graph.blocked_sums import make_blocked_sums
from export.graph.channels_last import use_channels_last
from export.graph.conditional_norms import merge_conditional_norms
from export.graph.cropping import crop_early
from export.graph.image_by_image import compute_image_by_image
from export.graph.image_norms import make_batch_norms
from export.graph.last_interleaving import move_last_interleaving
from export.graph.last_layer import make_block_outputs
from export.graph.linear_layers import compose_linear_layers
from export.graph.norm_products import make_norm_products
from export.graph.norms_of_sums import distribute_batch_norms
from export.graph.phase_convolutions import PhaseForm, make_phase_convolutions, make_phases_of_terms
from export.graph.row_tables import fold_row_tables
from export.graph.upsampling import move_before_upsampling
from export.graph.zero_biases import choose_zero_biases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import onnx

    from pxdbg_runtime.model.card import Precision, Target

__all__ = [
    "INT8_PASSES",
    "SHARED_TERMS",
    "SIMPLIFYING_PASSES",
    "Pass",
    "Stage",
    "apply_passes",
    "list_passes",
    "run_passes",
]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One pass over a graph.

    Attributes
    ----------
    name : str
        Short description, for cards and tables.
    apply : callable
        Changes a model in place; returns the number of places changed.
    """

    name: str
    apply: Callable[[ir.Model], int]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A graph after a pass.

    Attributes
    ----------
    name : str
        Name of the pass; ``plain`` for the graph of PyTorch's exporter.
    n_changes : int
        Number of places that the pass changed.
    model : onnx.ModelProto
    """

    name: str
    n_changes: int
    model: onnx.ModelProto

    @property
    def cost(self) -> Cost:
        """Cost of one image after the pass."""
        return count_cost(ir.from_proto(self.model))


SHARED_TERMS: Final = "phases of shared terms"
"""Name of the pass that computes the phases of a convolution of an upsampled image from terms that they share."""
SIMPLIFYING_PASSES: Final = (
    Pass(name="merge conditional norms", apply=merge_conditional_norms),
    Pass(name="fold batch norms", apply=fold_batch_norms),
    Pass(name="compose linear layers", apply=compose_linear_layers),
    Pass(name="move work before upsampling", apply=move_before_upsampling),
    Pass(name="crop early", apply=crop_early),
)
"""Passes that remove work, for all targets in floating point."""
INT8_PASSES: Final = (
    Pass(name="fold batch norms", apply=fold_batch_norms),
    Pass(name="merge conditional norms", apply=functools.partial(merge_conditional_norms, folds_constants=False)),
    Pass(name="compose linear layers", apply=compose_linear_layers),
    Pass(name="move work before upsampling", apply=move_before_upsampling),
    Pass(name="crop early", apply=crop_early),
    Pass(name="batch norms of sums", apply=distribute_batch_norms),
)
"""Passes before quantization. Batch norms stay with their layers, so that the values to quantize are centred."""


def list_passes(target: Target, precision: Precision = "float32") -> tuple[Pass, ...]:
    """List the passes of a target in float32, or before the conversion to another precision, in their order."""
    is_for_cpu = (target, precision) == ("cpu", "float32")
    phases: PhaseForm = "rows" if target == "cpu" else "apart" if precision == "float32" else "together"
    shared = Pass(name=SHARED_TERMS, apply=functools.partial(make_phases_of_terms, form=phases))
    form: tuple[Pass, ...] = (
        Pass(name="row tables", apply=fold_row_tables),
        Pass(name="batch norms of sums", apply=distribute_batch_norms),
        Pass(name="last layer in blocks", apply=make_block_outputs),
        *((shared,) if precision == "float32" else ()),
        Pass(name="phase convolutions", apply=functools.partial(make_phase_convolutions, form=phases)),
    )
    if (target, precision) == ("cuda", "float16"):
        moved = Pass(name="largest images in phases", apply=move_last_interleaving)
        products = Pass(name="norms as products of matrices", apply=make_norm_products)
        last = Pass(name="channels last", apply=use_channels_last)
        form = (*form, moved, products, last, Pass(name="biases of zeros", apply=choose_zero_biases))
    if (target, precision) == ("cuda", "float32"):
        form = (*form, Pass(name="norms as batch norms", apply=make_batch_norms))
    if is_for_cpu:
        blocked = Pass(name="sums in blocks", apply=make_blocked_sums)
        form = (*form, blocked, Pass(name="image by image", apply=compute_image_by_image))
    return (*SIMPLIFYING_PASSES, *form)


def run_passes(plain: onnx.ModelProto, passes: Iterable[Pass]) -> Iterator[Stage]:
    """Yield the plain graph, then the graph after each pass: the same object if the pass changed nothing.

    Parameters
    ----------
    plain : onnx.ModelProto
        Not changed.
    passes : iterable of Pass
    """
    model = _read(plain)
    written = ir.to_proto(model)
    yield Stage(name="plain", n_changes=0, model=written)
    for each in passes:
        n_changes = _apply(each, model)
        if n_changes:
            written = ir.to_proto(model)
        yield Stage(name=each.name, n_changes=n_changes, model=written)


def apply_passes(plain: onnx.ModelProto, passes: Iterable[Pass]) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Apply passes, without the graphs between them; return the graph and the names of those that changed it.

    Parameters
    ----------
    plain : onnx.ModelProto
        Not changed.
    passes : iterable of Pass
    """
    model = _read(plain)
    names = tuple(each.name for each in passes if _apply(each, model))
    return ir.to_proto(model), names


def _read(plain: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(plain)
    _infer_shapes(model)
    return model


def _apply(each: Pass, model: ir.Model) -> int:
    n_changes = each.apply(model)
    if n_changes:
        common_passes.RemoveUnusedNodesPass()(model)
        _infer_shapes(model)
    return n_changes


def _infer_shapes(model: ir.Model) -> None:
    common_passes.ShapeInferencePass(check_type=True, strict_mode=False, data_prop=True)(model)
