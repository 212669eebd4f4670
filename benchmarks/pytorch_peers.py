"""PyTorch's ways to an event, on one thread: the original's, and two that are kinder to the caches.

Importing this module imports PyTorch.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from benchmarks.events import draws_of, event_run
from export.charge import compute_charges
from export.checkpoint import load_checkpoint
from export.families.generator_module import LATENT_SIZE
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.timing import Run
    from export.families.generator_module import GeneratorModule
    from pxdbg_runtime.model.card import ModelCard

__all__ = ["compiled_model", "digits_of", "matrix_product_rate", "model_run", "one_thread", "original_event"]

_MATRIX_SIZE: Final = 2048
"""Large enough for the product to be limited by arithmetic alone."""
_PRODUCTS: Final = 5

Hits = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.uint8]"]
"""Sensor index, u cell, v cell, and charge in ADU of each hit."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use one thread, and as many as before afterwards: graphs are made in this process too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compiled_model(checkpoint: Path, family: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Load a checkpoint for torch.compile, which compiles at the first call."""
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(load_checkpoint(checkpoint, family))
    return compiled


@one_thread()
def original_event(model: GeneratorModule, n_images: int = N_SENSORS) -> Hits:
    """Make an event as the original does: latents, all images at once, charges, digits."""
    latents = torch.randn(n_images, LATENT_SIZE)
    with torch.inference_mode():
        images = model(latents)
    return digits_of(images)


@one_thread()
def digits_of(images: torch.Tensor) -> Hits:
    """Make the digits of images (n, 250, 768) of tanh values as the original does."""
    charges: NDArray[np.uint8] = compute_charges(images).numpy()
    sensor, u_cell, v_cell = np.nonzero(charges)
    return sensor, u_cell, v_cell, charges[sensor, u_cell, v_cell]


def model_run(model: Callable[[torch.Tensor], torch.Tensor], card: ModelCard) -> Run:
    """Warm a model up, and make what times the images of the event in batches."""
    latents = torch.from_numpy(draws_of(card)[card.draws[0].name])

    def images(sensors: range) -> None:
        with one_thread(), torch.inference_mode():
            model(latents[sensors.start : sensors.stop])

    return event_run(images)


@one_thread()
def matrix_product_rate(clock: Callable[[], float]) -> float:
    """Measure the multiply-accumulates a second of a large float32 matrix product, best of several."""
    left, right = (torch.rand(_MATRIX_SIZE, _MATRIX_SIZE) for _ in range(2))
    product = torch.empty(_MATRIX_SIZE, _MATRIX_SIZE)
    shortest = float("inf")
    for _ in range(_PRODUCTS):
        start = clock()
        torch.mm(left, right, out=product)
        shortest = min(shortest, clock() - start)
    return _MATRIX_SIZE**3 / shortest
