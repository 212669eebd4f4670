"""Quantization of a simplified float32 graph to 8-bit integers, for the CPU."""

from __future__ import annotations

from export.int8.calibration import calibrate, measure_means
from export.int8.lowering import OutputRange, quantize_graph
from export.int8.weights import WeightBits

__all__ = ["OutputRange", "WeightBits", "calibrate", "measure_means", "quantize_graph"]
