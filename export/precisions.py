"""From the plain graph to a graph of the wanted precision and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.charge import cut_thresholds
from export.errors import GraphError
from export.fidelity import measure_fidelity
from export.float16_images import compute_float16_images
from export.graph import INT8_PASSES, apply_passes, convert_to_float16, list_passes, run_passes
from export.inference import compute_images, draw_feeds, measure_seconds_per_image
from export.int8 import OutputRange, calibrate, measure_means, quantize_graph
from export.int8.correction import fit_line, fold_line, match_thresholds
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import onnx
    from numpy.typing import NDArray

    from export.families import Family
    from export.graph import Pass
    from export.int8 import WeightBits
    from export.int8.calibration import Ranges
    from pxdbg_runtime.model.card import Fidelity, Precision, Target

__all__ = ["BuiltGraph", "build_graph", "print_pass_costs"]

_FIDELITY_IMAGES: Final = 20 * N_SENSORS
_FIDELITY_SEED: Final = -2
"""Fidelity is measured on latents that the calibration does not use."""
_CALIBRATION_IMAGES: Final = 80
_CALIBRATION_SEED: Final = -1
_MATCHED_IMAGES: Final = 8 * N_SENSORS
"""Images that correct the last layer and the thresholds: with 80, the number of hits was up to 0.9 % off."""
_MATCHING_RUNS: Final = 2
"""For the estimate of the time: int8 takes about as long as this many runs of the float32 graph over these images."""
_ROUNDING_RUNS: Final = 2
"""For the estimate of the time: an image with rounded results takes 1.5 to 2.4 times as long as one in float32."""
_MEANS_IMAGES: Final = 20
"""Means need fewer images than ranges: the first of the calibration's."""
_RANGE_MARGIN: Final = 0.15
_HEADROOM: Final = 1.1


@dataclass(frozen=True, kw_only=True)
class BuiltGraph:
    """A graph of some precision.

    Attributes
    ----------
    model : onnx.ModelProto
    passes : tuple of str
        Names of the passes that changed the graph, in order.
    thresholds : ndarray of float32, shape (255,)
        Charge thresholds of this graph.
    cut : float or None
        Outputs not greater than this are empty. It is part of an int8 graph's own thresholds, and None.
    fidelity : Fidelity or None
        None for float32.
    """

    model: onnx.ModelProto
    passes: tuple[str, ...]
    thresholds: NDArray[np.float32]
    cut: float | None
    fidelity: Fidelity | None


def build_graph(
    plain: onnx.ModelProto,
    family: Family,
    precision: Precision,
    target: Target,
    *,
    thresholds: NDArray[np.float32],
    min_charge: int,
    weight_bits: WeightBits = 7,
    check_exact: Callable[[onnx.ModelProto], None] = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
) -> BuiltGraph:
    """Build the graph of a precision for a target.

    Parameters
    ----------
    plain : onnx.ModelProto
        Graph of PyTorch's exporter.
    family : Family
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        "cpu" for int8.
    thresholds : ndarray of float32, shape (255,)
        Charge thresholds of the float32 graph.
    min_charge : int
        Smallest charge of a hit, ADU.
    weight_bits : {7, 8}
        Bits of the weights of an int8 graph.
    check_exact : callable, optional
        Called with the float32 graph before another precision is made of it, whose comparison with that graph would not
        show an error that both share.
    log : callable, optional
        Called with a line after each step.

    Raises
    ------
    GraphError
        If the graph cannot have this precision, as one with weights or values that are too large for float16.
    """
    exact, names = apply_passes(plain, list_passes(target))
    if precision == "float32":
        return BuiltGraph(model=exact, passes=names, thresholds=thresholds, cut=family.cut, fidelity=None)
    check_exact(exact)
    feeds = draw_feeds(family, _FIDELITY_SEED, _FIDELITY_IMAGES)
    n_runs = (1 + _ROUNDING_RUNS if precision == "float16" else 2) * _FIDELITY_IMAGES
    n_runs += _MATCHING_RUNS * _MATCHED_IMAGES if precision == "int8" else 0
    time = _format_time(n_runs * measure_seconds_per_image(exact, feeds))
    log(f"building the {precision} graph and comparing {_FIDELITY_IMAGES} images with float32: about {time}")
    cut, table = family.cut, cut_thresholds(thresholds, family.cut)
    own_thresholds = thresholds
    if precision == "float16":
        model, names = apply_passes(plain, list_passes(target, precision))
        model, names = convert_to_float16(model), (*names, "half precision")
    else:
        cut = None
        simple, names = apply_passes(plain, INT8_PASSES)
        model, own_thresholds = _build_int8(simple, family, table, min_charge, weight_bits)
        names = (*names, "8-bit integers, channels last", "last layer and thresholds corrected")
        log(
            f"calibrated on {_CALIBRATION_IMAGES} images, corrected on {_MATCHED_IMAGES}, weights of {weight_bits} bits"
        )
    compute_other = compute_float16_images if precision == "float16" else compute_images
    fidelity = measure_fidelity(
        exact, model, table, feeds, min_charge, cut_thresholds(own_thresholds, cut), log, compute_other
    )
    return BuiltGraph(model=model, passes=names, thresholds=own_thresholds, cut=cut, fidelity=fidelity)


def _format_time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def print_pass_costs(plain: onnx.ModelProto, passes: Iterable[Pass], log: Callable[[str], None]) -> None:
    """Log a table of passes: places changed, and the cost of one image.

    If the shape of a value is unknown, the line of the pass says so instead of the cost.
    """
    before: int | None = None
    log("pass                           places   multiply-accumulates   bytes moved   weights")
    for stage in run_passes(plain, passes):
        start = f"{stage.name:30s} {stage.n_changes or '-':>6}"
        try:
            cost = stage.cost
        except ValueError as error:
            log(f"{start}   unknown, since {error}")
            before = None
            continue
        products = cost.multiply_accumulates
        change = f" ({products / before - 1:+.1%})" if before and products != before else ""
        log(
            f"{start}   {products / 1e6:8,.0f} M{change:10s}   "
            f"{cost.bytes_moved / 1e6:8,.0f} MB   {cost.weight_bytes / 1e6:5,.1f} MB"
        )
        before = products


def _build_int8(
    simple: onnx.ModelProto, family: Family, thresholds: NDArray[np.float32], min_charge: int, bits: WeightBits
) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """Quantize a simplified graph twice, then with a corrected last layer; match the thresholds of its charges."""
    images = draw_feeds(family, _CALIBRATION_SEED, _CALIBRATION_IMAGES, 1)
    feeds = draw_feeds(family, _CALIBRATION_SEED, _MATCHED_IMAGES, 2)
    ranges = calibrate(simple, images)
    output_range = _find_output_range(simple, ranges, thresholds, min_charge)
    means = measure_means(simple, images[:_MEANS_IMAGES])
    first = quantize_graph(simple, ranges, output_range, bits, means)
    found, expected = (np.concatenate(list(compute_images(model, feeds))) for model in (first, simple))
    line = fit_line(found, expected, output_range, float(thresholds[min_charge - 1]))
    second = quantize_graph(fold_line(simple, line), ranges, output_range, bits, means)
    found = np.concatenate(list(compute_images(second, feeds)))
    return second, match_thresholds(found, expected, thresholds, min_charge)


def _find_output_range(
    simple: onnx.ModelProto, ranges: Ranges, thresholds: NDArray[np.float32], min_charge: int
) -> OutputRange:
    """Find the range of the last convolution that matters: from just below a hit to the largest charge or value."""
    last = next((node for node in reversed(simple.graph.node) if node.op_type == "Conv"), None)
    if last is None:
        message = "int8 needs a generator that ends in a convolution, but this one has none: export it in float32."
        raise GraphError(message)
    low, largest = (float(np.arctanh(np.float64(value))) for value in (thresholds[min_charge - 1], thresholds[-2]))
    seen = ranges[last.output[0]][1]
    highest = max(_HEADROOM * seen, seen / _HEADROOM)  # above a negative value too
    return OutputRange(low=low - _RANGE_MARGIN, high=max(min(largest + _RANGE_MARGIN, highest), low + _RANGE_MARGIN))
