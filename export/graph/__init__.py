"""The graph compiler: passes that make a graph cost less and leave its function as it is, and its other precisions."""

from __future__ import annotations

from export.graph.arithmetic import Cost, count_multiply_accumulates
from export.graph.charges import append_charges
from export.graph.compiler import Pass, Stage, compile_graph, list_passes, run_passes, simplify_graph
from export.graph.float16 import convert_to_float16
from export.graph.phase_convolutions import Target

__all__ = [
    "Cost",
    "Pass",
    "Stage",
    "Target",
    "append_charges",
    "compile_graph",
    "convert_to_float16",
    "count_multiply_accumulates",
    "list_passes",
    "run_passes",
    "simplify_graph",
]
