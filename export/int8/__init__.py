"""From a simplified float32 graph to one of 8-bit integers, for the CPU."""

from __future__ import annotations

from export.int8.calibration import calibrated, measured_means
from export.int8.lowering import HeadRange, quantised
from export.int8.weights import WeightBits

__all__ = ["HeadRange", "WeightBits", "calibrated", "measured_means", "quantised"]
