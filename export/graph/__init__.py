"""The graph compiler: passes that make a graph cheaper but compute the same, float16, and charges as output."""

from __future__ import annotations

from export.graph.arithmetic import Cost, count_multiply_accumulates
from export.graph.charges import append_charges
from export.graph.compact_weights import store_compactly
from export.graph.compiler import INT8_PASSES, Pass, Stage, apply_passes, list_passes, run_passes
from export.graph.float16 import convert_to_float16

__all__ = [
    "INT8_PASSES",
    "Cost",
    "Pass",
    "Stage",
    "append_charges",
    "apply_passes",
    "convert_to_float16",
    "count_multiply_accumulates",
    "list_passes",
    "run_passes",
    "store_compactly",
]
