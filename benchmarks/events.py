"""The event that all benchmarks make: its latents, and the batches of its forty images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.timing import timed
from pxdbg_runtime.generator import DEFAULT_BATCH_SIZE
from pxdbg_runtime.inference.latents import make_stream
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from benchmarks.timing import Run
    from pxdbg_runtime.inference.session import ImageSession
    from pxdbg_runtime.model.card import ModelCard

__all__ = ["EVENT", "PEER_BATCH_SIZE", "SEED", "batches", "draws_of", "event_images", "event_run", "session_run"]

SEED: Final = 7
EVENT: Final = 0
PEER_BATCH_SIZE: Final = 4
"""Images a call where a peer works in batches: few enough for the caches, many enough for the linear layer."""


def draws_of(card: ModelCard) -> dict[str, NDArray[np.float32]]:
    """Draw the event's values, by the names of a card's draws."""
    values = make_stream("philox", SEED, card.draws).draw(EVENT)
    return {draw.name: drawn for draw, drawn in zip(card.draws, values, strict=True)}


def batches(size: int) -> Iterator[range]:
    """Give the indices of the forty sensors in batches."""
    for start in range(0, N_SENSORS, size):
        yield range(start, min(start + size, N_SENSORS))


def event_run(images: Callable[[range], object], size: int = PEER_BATCH_SIZE) -> Run:
    """Warm up on the first batch, and make what times the images of one event, batch after batch.

    Parameters
    ----------
    images : callable
        Computes the images of consecutive sensors, which are dropped.
    size : int
        Images a call.
    """

    def work() -> None:
        for sensors in batches(size):
            images(sensors)

    return timed(work, warm_up=lambda: images(range(size)))


def session_run(session: ImageSession, card: ModelCard, size: int = PEER_BATCH_SIZE) -> Run:
    """Warm a session up, and make what times the images of the event."""
    draws = draws_of(card)
    return event_run(lambda sensors: session.compute_images(sensors, draws), size)


def event_images(session: ImageSession, card: ModelCard) -> NDArray[np.float32]:
    """Compute the forty images of the event, as the session gives them."""
    draws = draws_of(card)
    return np.concatenate([session.compute_images(sensors, draws) for sensors in batches(DEFAULT_BATCH_SIZE)])
