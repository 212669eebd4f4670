"""From the plain graph to one of the wanted precision and target, with what is worth telling about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from export.errors import GraphError
from export.fidelity import N_IMAGES, compute_images, draw_latents, measure_fidelity, seconds_an_image
from export.graph import compile_graph, convert_to_float16, list_passes, run_passes, simplify_graph
from export.graph.compiler import SIMPLIFYING_PASSES
from export.int8 import OutputRange, calibrate, measure_means, quantize_graph
from export.int8.correction import fit_line, fold_line, match_thresholds
from export.torch_graph import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.typing import NDArray

    from export.graph import Target
    from export.int8 import WeightBits
    from export.int8.calibration import Ranges
    from pxdbg_runtime.model.card import Fidelity, Precision

__all__ = ["BuiltGraph", "build_graph", "print_pass_costs"]

_CALIBRATION_IMAGES: Final = 80
_CALIBRATION_SEED: Final = -1
_CALIBRATION_RUNS: Final = 5
"""Making int8 takes about as long as this many passes of the float32 graph over these images; the time told is estimated
from that."""
_MEANS_IMAGES: Final = 20
"""Means are measured on the first of these images: they need fewer than ranges."""
_FIDELITY_SEED: Final = -2
"""Fidelity is measured on latents that calibration has not seen."""
_HEAD_MARGIN: Final = 0.15
_HEADROOM: Final = 1.1


@dataclass(frozen=True, kw_only=True)
class BuiltGraph:
    """A graph of some precision, and what was found out about it.

    Attributes
    ----------
    model : onnx.ModelProto
    passes : tuple of str
        What was done to the plain graph, in order.
    thresholds : ndarray of float32, shape (255,)
        Of its charges.
    fidelity : Fidelity or None
        None for float32.
    """

    model: onnx.ModelProto
    passes: tuple[str, ...]
    thresholds: NDArray[np.float32]
    fidelity: Fidelity | None


def build_graph(
    plain: onnx.ModelProto,
    precision: Precision,
    target: Target,
    *,
    thresholds: NDArray[np.float32],
    min_charge: int,
    weight_bits: WeightBits = 7,
    log: Callable[[str], None] = lambda _: None,
) -> BuiltGraph:
    """Make a graph of a precision for a target.

    Parameters
    ----------
    plain : onnx.ModelProto
        As PyTorch's exporter gave it.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        "cpu" for int8.
    thresholds : ndarray of float32, shape (255,)
        Of the charges.
    min_charge : int
        Smallest charge of a hit, ADU.
    weight_bits : {7, 8}
        Of the weights of an int8 graph.
    log : callable, optional
        Called with a line as each step is done.

    Raises
    ------
    GraphError
        If the graph cannot have this precision.
    """
    exact = compile_graph(plain, target)
    names = tuple(each.name for each in list_passes(target))
    if precision == "float32":
        return BuiltGraph(model=exact, passes=names, thresholds=thresholds, fidelity=None)
    latent_size = plain.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    inputs = draw_latents(latent_size, N_IMAGES, _FIDELITY_SEED)
    seconds = seconds_an_image(exact, inputs) * (
        2 * N_IMAGES + (_CALIBRATION_RUNS * _CALIBRATION_IMAGES if precision == "int8" else 0)
    )
    log(f"making {precision} and comparing {N_IMAGES} images with float32: about {_format_time(seconds)}")
    own_thresholds = thresholds
    if precision == "float16":
        model, names = convert_to_float16(exact), (*names, "half precision")
    else:
        model, own_thresholds = _in_integers(
            plain,
            thresholds,
            min_charge,
            weight_bits,
            draw_latents(latent_size, _CALIBRATION_IMAGES, _CALIBRATION_SEED),
        )
        names = (
            *(each.name for each in SIMPLIFYING_PASSES),
            "8-bit integers, channels last",
            "last layer and thresholds corrected",
        )
        log(f"calibrated on {_CALIBRATION_IMAGES} images, weights of {weight_bits} bits")
    fidelity = measure_fidelity(exact, model, thresholds, inputs, min_charge, own_thresholds, log)
    return BuiltGraph(model=model, passes=names, thresholds=own_thresholds, fidelity=fidelity)


def _format_time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"


def print_pass_costs(plain: onnx.ModelProto, target: Target, log: Callable[[str], None]) -> None:
    """Tell what each pass does to a graph: places changed, multiply-accumulates and bytes of one image."""
    before: int | None = None
    log("pass                           places   multiply-accumulates   bytes moved   weights")
    for stage in run_passes(plain, target):
        cost, products = stage.cost, stage.cost.multiply_accumulates
        change = f" ({products / before - 1:+.1%})" if before and products != before else ""
        log(
            f"{stage.name:30s} {stage.n_changes or '-':>6}   {products / 1e6:8,.0f} M{change:10s}   "
            f"{cost.bytes_moved / 1e6:8,.0f} MB   {cost.weight_bytes / 1e6:5,.1f} MB"
        )
        before = products


def _in_integers(
    plain: onnx.ModelProto,
    thresholds: NDArray[np.float32],
    min_charge: int,
    bits: WeightBits,
    inputs: NDArray[np.float32],
) -> tuple[onnx.ModelProto, NDArray[np.float32]]:
    """Make the graph, and the thresholds of its charges."""
    simple = simplify_graph(plain)
    ranges = calibrate(simple, {INPUT_NAME: inputs})
    head = _head_range(simple, ranges, thresholds, min_charge)
    means = measure_means(simple, {INPUT_NAME: inputs[:_MEANS_IMAGES]})
    first = quantize_graph(simple, ranges, head, bits, means)
    found, expected = (np.concatenate(list(compute_images(model, inputs))) for model in (first, simple))
    line = fit_line(found, expected, head, float(thresholds[min_charge - 1]))
    second = quantize_graph(fold_line(simple, line), ranges, head, bits, means)
    found = np.concatenate(list(compute_images(second, inputs)))
    return second, match_thresholds(found, expected, thresholds, min_charge)


def _head_range(
    simple: onnx.ModelProto, ranges: Ranges, thresholds: NDArray[np.float32], min_charge: int
) -> OutputRange:
    """Find where the last convolution's result matters: from just below a hit to the largest charge or value."""
    last = next((node for node in reversed(simple.graph.node) if node.op_type == "Conv"), None)
    if last is None:
        message = "int8 needs a generator that ends in a convolution, but this one has none: export it in float32."
        raise GraphError(message)
    low, largest = (float(np.arctanh(np.float64(value))) for value in (thresholds[min_charge - 1], thresholds[-2]))
    seen = _HEADROOM * ranges[last.output[0]][1]
    return OutputRange(low=low - _HEAD_MARGIN, high=max(min(largest + _HEAD_MARGIN, seen), low + _HEAD_MARGIN))
