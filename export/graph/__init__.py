"""The graph compiler: passes that make a graph cost less and leave its function as it is, and its other precisions."""

from __future__ import annotations

from export.graph.arithmetic import Cost, multiply_accumulates
from export.graph.charges import with_charges
from export.graph.compiler import Pass, Stage, compiled, passes_for, simplified, stages
from export.graph.float16 import in_half_precision
from export.graph.phase_convolutions import Target

__all__ = [
    "Cost",
    "Pass",
    "Stage",
    "Target",
    "compiled",
    "in_half_precision",
    "multiply_accumulates",
    "passes_for",
    "simplified",
    "stages",
    "with_charges",
]
