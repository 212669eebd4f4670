"""Reference outputs for the card's known answers: which images and pixels, and how far from them a runtime may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.charge import compute_hit_charges
from export.errors import GraphError
from export.inference import compute_images
from export.parity import REFERENCE_EVENT, REFERENCE_SEED
from pxdbg_runtime.model.known_answers import KnownAnswers

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from export.parity import ReferenceImages
    from pxdbg_runtime.model.card import OutputKind, Precision

    Outputs = NDArray[np.float32] | NDArray[np.uint8]

__all__ = ["build_known_answers", "check_charges"]

_N_IMAGES: Final = 3
_N_PIXELS: Final = 4096
"""Pixels of each image; a quarter of them or more are empty."""
_MAX_HITS: Final = 3072
_MARGIN: Final = 8.0
"""Another machine adds in another order, and may be this many times as far from float64 as the export."""
_MIN_TOLERANCES: Final = {"values": (1e-5, 1e-6), "charges": (1.0, 0.01)}
"""For the largest and for the mean difference, in tanh values or in ADU."""


def build_known_answers(
    references: ReferenceImages,
    graph: onnx.ModelProto,
    thresholds: NDArray[np.float32],
    precision: Precision,
    output_kind: OutputKind,
) -> KnownAnswers:
    """Choose images and pixels, and compute their outputs and tolerances.

    Every machine computes an int8 graph exactly: its own charges are the reference, without a tolerance. The reference
    of any other graph is PyTorch in float64. The tolerance is eight times the difference from it: of PyTorch's float32
    images, norms folded into weights or not, for a float32 graph with values as output, and of the graph's own images
    for any other.

    Parameters
    ----------
    references : ReferenceImages
    graph : onnx.ModelProto
        The graph of the file.
    thresholds : ndarray of float32, shape (255,)
        Charge thresholds of the graph, raised to its cut.
    precision : {"float32", "float16", "int8"}
    output_kind : {"values", "charges"}

    Raises
    ------
    GraphError
        If an image without hits would be within the tolerances.
    """
    compared: OutputKind = "charges" if precision == "int8" else output_kind
    exact = references.exact.astype(np.float32)
    is_float32 = precision == "float32" and compared == "values"
    found: list[Outputs] = (
        [references.float32, references.folded]
        if is_float32
        else [np.concatenate(list(compute_images(graph, references.feeds)))]
    )
    if compared == "charges":
        found = [_to_charges(each, thresholds) for each in found]
    charges = found[0] if precision == "int8" else _to_charges(exact, thresholds)
    expected = charges if compared == "charges" else exact
    chosen = [(image, _choose_pixels(charges[image].ravel(), image)) for image in _choose_images(charges)]
    differences = [
        np.abs(each[image].ravel()[pixels].astype(np.float64) - expected[image].ravel()[pixels].astype(np.float64))
        for image, pixels in chosen
        for each in found
    ]
    largest, mean = (max(float(measure(each)) for each in differences) for measure in (np.max, np.mean))
    min_tolerance, min_mean_tolerance = (0.0, 0.0) if precision == "int8" else _MIN_TOLERANCES[compared]
    answers = KnownAnswers(
        compared=compared,
        seed=REFERENCE_SEED,
        event=REFERENCE_EVENT,
        tolerance=_round(max(min_tolerance, _MARGIN * largest)),
        mean_tolerance=_round(max(min_mean_tolerance, _MARGIN * mean)),
        images=tuple(
            KnownAnswers.encode_image(compared, references.sensors[image], pixels, expected[image].ravel()[pixels])
            for image, pixels in chosen
        ),
    )
    if answers.mean_tolerance > min_mean_tolerance and _accept_no_hits(answers, thresholds):
        advice = "Export it in float32." if precision == "float16" else "Try other releases of torch and onnxruntime."
        message = (
            f"The images of the graph are so far from those of the model in float64, by up to {largest:.3g} "
            f"{'ADU' if compared == 'charges' else 'in tanh'}, that its known answers would accept images without "
            f"hits: nothing was written. {advice}"
        )
        raise GraphError(message)
    return answers


def check_charges(
    references: ReferenceImages, values: onnx.ModelProto, charges: onnx.ModelProto, thresholds: NDArray[np.float32]
) -> None:
    """Check the charges that a graph outputs.

    Parameters
    ----------
    references : ReferenceImages
        Their inputs are taken.
    values, charges : onnx.ModelProto
        The same graph with tanh values and with charges as output.
    thresholds : ndarray of float32, shape (255,)
        Charge thresholds of the graph, raised to its cut.

    Raises
    ------
    GraphError
        If a charge is not that of its value.
    """
    pairs = zip(compute_images(values, references.feeds), compute_images(charges, references.feeds), strict=True)
    differences = np.concatenate([found - compute_hit_charges(each, thresholds, 1) for each, found in pairs])
    if differences.any():
        message = (
            f"The graph computes wrong charges of its values in {np.count_nonzero(differences):,} of "
            f"{differences.size:,} pixels, by up to {np.abs(differences).max()} ADU: nothing was written. The releases "
            "of onnx and onnxruntime may be at fault: try the newest ones."
        )
        raise GraphError(message)


def _accept_no_hits(answers: KnownAnswers, thresholds: NDArray[np.float32]) -> bool:
    """Whether the tolerances accept each image that has hits without these."""
    empty, smallest_hit = (0.0, 1.0) if answers.compared == "charges" else (-1.0, float(thresholds[0]))
    accepted = []
    for image in answers.images:
        outputs = answers.decode_outputs(image)
        lost = np.where(outputs >= smallest_hit, outputs - empty, 0.0)
        if lost.any():
            accepted.append(lost.max() <= answers.tolerance and lost.mean() <= answers.mean_tolerance)
    return bool(accepted) and all(accepted)


def _to_charges(outputs: Outputs, thresholds: NDArray[np.float32]) -> Outputs:
    """Compute charges in ADU, unless the outputs are charges already."""
    if outputs.dtype == np.uint8:
        return outputs
    return np.searchsorted(thresholds, outputs, side="right").astype(np.uint8)


def _choose_images(charges: Outputs) -> list[int]:
    """Choose images that together hold many different charges, the image with the most first."""
    present = [set(np.unique(image).tolist()) for image in charges]
    chosen: list[int] = []
    covered: set[int] = set()
    for _ in range(min(_N_IMAGES, len(present))):
        best = max((n for n in range(len(present)) if n not in chosen), key=lambda n: len(present[n] - covered))
        chosen.append(best)
        covered |= present[best]
    return chosen


def _choose_pixels(charges: Outputs, seed: int) -> NDArray[np.int64]:
    """Choose one pixel of each charge, then other hits, then empty pixels; sort them."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(charges))
    _, firsts = np.unique(charges[order], return_index=True)
    one_of_each = order[firsts]
    rest = order[~np.isin(order, one_of_each)]
    is_hit = charges[rest] > 0
    hits = rest[is_hit][: _MAX_HITS - len(one_of_each)]
    empty = rest[~is_hit][: _N_PIXELS - len(one_of_each) - len(hits)]
    return np.sort(np.concatenate([one_of_each, hits, empty]))


def _round(value: float) -> float:
    """Round to two digits, which are the same on every machine."""
    return float(f"{value:.2g}")
