"""Distance of a graph's images from PyTorch's in float32 and in float64, on the same inputs in every export.

PyTorch's float32 is computed twice: with the model as it is, and with norms folded into weights (`fold_model`). Graphs
have folded norms too. Folding rounds each weight, which matters for weights that cancel exactly before.

Two questions are answered apart. Does the graph compute the model? It is evaluated in float64, where its images differ
by the rounding of its weights alone, on every machine alike. Does ONNX Runtime compute the graph precisely here? How
its kernels round depends on the CPU, so the graph of PyTorch's exporter shows how much of that is theirs.
"""

from __future__ import annotations

import copy
import functools
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from onnx import TensorProto
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.charge import compute_charges, compute_hit_charges, cut_thresholds
from export.convolution import FastConvolutions
from export.errors import ParityError
from export.float64 import compute_exact_images
from export.inference import compute_images, draw_event
from pxdbg_runtime.model.card import Parity
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from export.families import Family, Feed
    from export.families.generator_module import GeneratorModule

__all__ = [
    "REFERENCE_EVENT",
    "REFERENCE_SEED",
    "ReferenceImages",
    "check_function",
    "check_parity",
    "compute_references",
    "fold_model",
    "format_parity",
    "measure_exact_difference",
    "measure_float64_difference",
    "measure_parity",
]

REFERENCE_SEED: Final = -3
REFERENCE_EVENT: Final = 0
_SENSORS: Final = range(0, N_SENSORS, 5)
"""Sensors whose images are compared, eight of the event's forty."""
_MAX_RATIO: Final = 2.0
"""A graph may be so many times as far from float64 as PyTorch, or as the graph of PyTorch's exporter."""
_MAX_KERNEL_RATIO: Final = 8.0
"""However coarse the kernels of ONNX Runtime are: known answers allow the same (`export.reference_outputs`)."""
_MIN_BOUND: Final = 5e-6
"""Rounding in one sum of a hundred terms can reach this, so no graph is refused for a smaller difference."""
_MAX_WEIGHTS_RATIO: Final = 1.5
"""The rounding of weights in a graph may move its images so many times as far as all rounding in PyTorch's float32."""
_MIN_WEIGHTS_BOUND: Final = 1e-6
"""The rounding of a few weights can reach this."""
_MAX_BOUND: Final = 1e-3
"""However coarse PyTorch's own images are, a graph that differs by more from float64 is refused."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceImages:
    """Images of a model in PyTorch, on inputs of the Philox stream.

    Attributes
    ----------
    sensors : tuple of int
        Indices of the sensors.
    feeds : tuple of Feed
        Inputs of each image.
    batch : Feed
        Inputs of all images as one batch.
    exact : ndarray of float64, shape (images, 250, 768)
        Tanh values computed in float64.
    float32 : ndarray of float32, shape (images, 250, 768)
        Tanh values computed in float32.
    folded : ndarray of float32, shape (images, 250, 768)
        Tanh values computed in float32 with the folded model.
    """

    sensors: tuple[int, ...]
    feeds: tuple[Feed, ...]
    batch: Feed
    exact: NDArray[np.float64]
    float32: NDArray[np.float32]
    folded: NDArray[np.float32]

    @functools.cached_property
    def pytorch_difference(self) -> float:
        """Largest difference of the images in float32, folded or not, from those in float64."""
        return max(_find_largest_difference(each, self.exact) for each in (self.float32, self.folded))


def compute_references(model: GeneratorModule, family: Family) -> ReferenceImages:
    """Compute the images that a graph is compared with."""
    draws = draw_event(family, REFERENCE_SEED, REFERENCE_EVENT)
    feeds = tuple(family.build_feed(draws, range(sensor, sensor + 1)) for sensor in _SENSORS)
    return ReferenceImages(
        sensors=tuple(_SENSORS),
        feeds=feeds,
        batch=family.build_feed(draws, _SENSORS),
        exact=_compute_pytorch_images(copy.deepcopy(model).double(), feeds, torch.float64),
        float32=_compute_pytorch_images(model, feeds, torch.float32),
        folded=_compute_pytorch_images(fold_model(model), feeds, torch.float32),
    )


def measure_parity(
    references: ReferenceImages,
    graph: onnx.ModelProto,
    thresholds: NDArray[np.float32],
    min_charge: int,
    cut: float | None = None,
) -> Parity:
    """Compare the images of a graph with those of its model.

    Parameters
    ----------
    references : ReferenceImages
    graph : onnx.ModelProto
        It computes tanh values.
    thresholds : ndarray of float32, shape (255,)
        Charge thresholds of the graph.
    min_charge : int
        Smallest charge of a hit, ADU. Pixels with less are empty in both.
    cut : float, optional
        Values that are not greater are empty in both.

    Raises
    ------
    ParityError
        If the images differ where ONNX Runtime computes them as one batch: by more than eight times the difference of
        PyTorch's float32 images from float64, or more than 0.001; in float16 by more than the images differ from
        float64.
    """
    *images, batch = compute_images(graph, [*references.feeds, references.batch])
    found = np.concatenate(images)
    pytorch_difference = references.pytorch_difference
    own_difference = _find_largest_difference(found, references.exact)
    if np.isfinite(found).all():  # otherwise `check_parity` refuses the graph
        is_float16 = any(each.data_type == TensorProto.FLOAT16 for each in graph.graph.initializer)
        bound = own_difference if is_float16 else min(_MAX_KERNEL_RATIO * pytorch_difference, _MAX_BOUND)
        _check_batch(_find_largest_difference(batch, found), max(bound, _MIN_BOUND), len(batch))
    charges = compute_hit_charges(found, cut_thresholds(thresholds, cut), min_charge)
    expected = compute_charges(torch.from_numpy(references.float32), cut).numpy()
    expected = np.where(expected < min_charge, 0, expected)
    is_hit = (charges > 0) | (expected > 0)
    return Parity(
        images=len(found),
        max_abs_difference=_find_largest_difference(found, references.float32),
        max_float64_difference=own_difference,
        pytorch_float64_difference=pytorch_difference,
        equal_charges=float((charges == expected)[is_hit].mean()) if is_hit.any() else 1.0,
    )


def _check_batch(difference: float, bound: float, n_images: int) -> None:
    if not difference <= bound:
        message = (
            f"The graph's images of a batch of {n_images} differ from those of the same inputs one at a time by up to "
            f"{difference:.3g}, more than the {bound:.3g} that rounding explains: nothing was written. "
            "The releases of onnxruntime and torch may be at fault: try the newest ones."
        )
        raise ParityError(difference, message)


def measure_exact_difference(references: ReferenceImages, graph: onnx.ModelProto) -> float:
    """Measure the largest difference between a float32 graph and its model, both evaluated in float64."""
    return _find_largest_difference(compute_exact_images(graph, references.feeds), references.exact)


def measure_float64_difference(references: ReferenceImages, graph: onnx.ModelProto) -> float:
    """Measure the largest difference between a graph in ONNX Runtime and its model in float64."""
    return _find_largest_difference(np.concatenate(list(compute_images(graph, references.feeds))), references.exact)


def check_function(exact_difference: float, parity: Parity) -> None:
    """Refuse a float32 graph that does not compute its model.

    Parameters
    ----------
    exact_difference : float
        Largest difference between the two in float64, which comes from the rounding of weights.
    parity : Parity

    Raises
    ------
    ParityError
        If it is more than one and a half times the difference of PyTorch's float32 images from float64, or more than
        0.001.
    """
    bound = min(max(_MAX_WEIGHTS_RATIO * parity.pytorch_float64_difference, _MIN_WEIGHTS_BOUND), _MAX_BOUND)
    if not exact_difference <= bound:
        message = (
            f"The graph does not compute the model: evaluated in float64, the images of the two differ by up to "
            f"{exact_difference:.3g}, more than the {bound:.3g} that is allowed (1.5 times the difference of PyTorch's "
            f"float32 images from float64, at least {_MIN_WEIGHTS_BOUND:g}, at most {_MAX_BOUND:g}): nothing was "
            "written. The releases of torch, onnx and onnxscript may be at fault: try the newest ones."
        )
        raise ParityError(exact_difference, message)


def check_parity(parity: Parity, plain_difference: float = 0.0) -> None:
    """Refuse a float32 graph that ONNX Runtime computes with much larger rounding errors than necessary.

    Parameters
    ----------
    parity : Parity
    plain_difference : float, optional
        Largest difference from float64 of the images that ONNX Runtime computes of the graph of PyTorch's exporter.

    Raises
    ------
    ParityError
        If the largest difference from float64 is more than twice that of PyTorch's float32 images and more than twice
        that of the exporter's graph, or more than eight times that of PyTorch's, or more than 0.001.
    """
    pytorch = parity.pytorch_float64_difference
    coarser = min(_MAX_RATIO * plain_difference, _MAX_KERNEL_RATIO * pytorch)
    bound = min(max(_MAX_RATIO * pytorch, coarser, _MIN_BOUND), _MAX_BOUND)
    if not parity.max_float64_difference <= bound:
        message = (
            f"The graph's images differ from those of the model in float64 by up to "
            f"{parity.max_float64_difference:.3g}, more than the {bound:.3g} that is allowed (twice the difference of "
            f"PyTorch's float32 images, {pytorch:.3g}, or of the unchanged graph in ONNX Runtime, "
            f"{plain_difference:.3g}, and at most eight times PyTorch's; at least {_MIN_BOUND:g}, at most "
            f"{_MAX_BOUND:g}): nothing was written. "
            "The releases of onnxruntime and torch may be at fault: try the newest ones."
        )
        raise ParityError(parity.max_float64_difference, message)


def format_parity(parity: Parity) -> str:
    """Write a parity in one line."""
    return (
        f"ONNX Runtime against PyTorch, {parity.images} images: largest difference {parity.max_abs_difference:.2e}, "
        f"from float64 {parity.max_float64_difference:.2e} (PyTorch's own "
        f"{parity.pytorch_float64_difference:.2e}), equal charges of hits {100 * parity.equal_charges:.3f} %"
    )


def _compute_pytorch_images(model: nn.Module, feeds: tuple[Feed, ...], dtype: torch.dtype) -> NDArray[Any]:
    images = []
    with torch.inference_mode(), FastConvolutions() if dtype == torch.float64 else nullcontext():
        for feed in feeds:
            inputs = (torch.from_numpy(each) for each in feed.values())
            images.append(model(*(each.to(dtype) if each.is_floating_point() else each for each in inputs)))
    found: NDArray[Any] = torch.cat(images).numpy()
    return found


def fold_model(model: GeneratorModule) -> GeneratorModule:
    """Copy a model, folded, with each batch norm that follows a convolution in an ``nn.Sequential`` folded into it too.

    Graphs are folded further: batch norms outside of sequences remain here.
    """
    folded = copy.deepcopy(model).fold()
    for sequence in folded.modules():
        if isinstance(sequence, nn.Sequential):
            for number, (layer, following) in enumerate(pairwise(sequence)):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                    sequence[number] = fuse_conv_bn_eval(layer, following)
                    sequence[number + 1] = nn.Identity()
    return folded


def _find_largest_difference(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    difference = np.subtract(found, expected, dtype=np.float64)
    largest = np.abs(difference, out=difference).max()  # NaN if any is NaN
    # A NaN must not pass for a small number. Three digits are the same on every machine.
    return np.inf if np.isnan(largest) else float(f"{largest:.3g}")
