"""Events in PyTorch on one thread: the way of the original, and batches. Importing this module imports PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.events import draw_event, time_images
from benchmarks.timing import Run
from export.charge import compute_charges
from export.families import load_family
from export.families.generator_module import draw_inputs
from pxdbg_runtime.model.card import ModelCard, build_feed
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from export.families.generator_module import GeneratorModule

Hits = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.uint8]"]
"""Sensor index, u cell, v cell, and charge in ADU of each hit."""


@contextmanager
def use_one_thread() -> Iterator[None]:
    """Let PyTorch use one thread; afterwards it uses as many as before, since this process also exports graphs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@use_one_thread()
def generate_original_event(model: GeneratorModule, family: str, n_images: int = N_SENSORS) -> Hits:
    """Generate an event as the original does: latents, all images at once, charges, digits."""
    variant = load_family(family).find_variant(model)
    inputs = draw_inputs(variant, n_images)
    with torch.inference_mode():
        images = model(*inputs)
    return find_hits(images, variant.cut)


@use_one_thread()
def find_hits(images: torch.Tensor, cut: float | None) -> Hits:
    """Find the hits of images (n, 250, 768) of tanh values as the original does, with its cut if it has one."""
    charges: NDArray[np.uint8] = compute_charges(images, cut).numpy()
    sensor, u_cell, v_cell = np.nonzero(charges)
    return sensor, u_cell, v_cell, charges[sensor, u_cell, v_cell]


def time_model(model: Callable[..., torch.Tensor], card: ModelCard) -> Run:
    """Warm up a model, and return a function that measures the seconds of the images of the event in batches."""
    draws = draw_event(card)

    def images(sensors: range) -> None:
        with use_one_thread(), torch.inference_mode():
            model(*map(torch.from_numpy, build_feed(card.inputs, draws, sensors).values()))

    return time_images(images)
