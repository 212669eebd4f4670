"""Graphs after all passes of a target or of int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

from export.graph import INT8_PASSES, apply_passes, list_passes

if TYPE_CHECKING:
    import onnx

    from pxdbg_runtime.model.card import Precision, Target

__all__ = ["compile_graph", "simplify_graph"]


def compile_graph(plain: onnx.ModelProto, target: Target, precision: Precision = "float32") -> onnx.ModelProto:
    """Apply all passes of a target in float32, or before the conversion to another precision."""
    return apply_passes(plain, list_passes(target, precision))[0]


def simplify_graph(plain: onnx.ModelProto) -> onnx.ModelProto:
    """Apply the passes that remove work before quantization."""
    return apply_passes(plain, INT8_PASSES)[0]
