"""The event that all benchmarks generate, and the time of its images in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Run, time_run
from pxdbg_runtime import Generator
from pxdbg_runtime.generator import DEFAULT_BATCH_SIZE
from pxdbg_runtime.inference.latents import create_stream
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.card import ModelCard
from pxdbg_runtime.model.graph_file import GraphFile
from pxdbg_runtime.sensors import N_SENSORS

SEED: Final = 7
EVENT: Final = 0
PEER_BATCH_SIZE: Final = 4
"""Images a call of a peer that works in batches: few enough for the caches, many enough for the linear layer."""

_N_WARM_UP_EVENTS: Final = 3
"""On a GPU they start both threads of a stream, each of which creates its own handles of cuBLAS and cuDNN."""


def draw_event(card: ModelCard, event: int = EVENT) -> dict[str, NDArray[np.float32]]:
    """Draw the values of an event, by the names of the draws of a card."""
    values = create_stream("philox", SEED, card.draws).draw(event)
    return {draw.name: drawn for draw, drawn in zip(card.draws, values, strict=True)}


def split_sensors(size: int) -> Iterator[range]:
    """Split the indices of the forty sensors into batches."""
    for start in range(0, N_SENSORS, size):
        yield range(start, min(start + size, N_SENSORS))


def compute_images(session: ImageSession) -> NDArray[np.float32]:
    """Compute the forty images of the event."""
    draws = draw_event(session.card)
    return np.concatenate([session.compute_images(sensors, draws) for sensors in split_sensors(DEFAULT_BATCH_SIZE)])


def consume_stream(generator: Generator, n_events: int = _N_WARM_UP_EVENTS) -> None:
    """Generate a stream of events and keep none; by default enough of them to warm up."""
    deque(generator.stream(range(n_events)), maxlen=0)


def time_images(images: Callable[[range], object], size: int = PEER_BATCH_SIZE) -> Run:
    """Time a function that computes the images of consecutive sensors, over an event in batches of this size."""

    def work() -> None:
        for sensors in split_sensors(size):
            images(sensors)

    return time_run(work, warm_up=lambda: images(range(size)))


def time_session(session: ImageSession, size: int = PEER_BATCH_SIZE) -> Run:
    """Time the images of the event in a session."""
    draws = draw_event(session.card)
    return time_images(lambda sensors: session.compute_images(sensors, draws), size)


def time_graph(graph: GraphFile, size: int = PEER_BATCH_SIZE) -> Run:
    """Time the images of the event in a session on the CPU, one thread."""
    return time_session(ImageSession(graph, provider="cpu"), size)


def time_generator(graph: GraphFile) -> Run:
    """Time the event in a generator on the CPU, one thread."""
    generator = Generator(graph.path, provider="cpu", seed=SEED)
    return time_run(lambda: generator.generate(EVENT))
