"""Runs a graph on the CPU, on inputs that are drawn from the runtime's Philox stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from export.errors import GraphError
from pxdbg_runtime.errors import one_line
from pxdbg_runtime.inference.latents import create_stream
from pxdbg_runtime.inference.providers import CPU, describe_onnxruntime_error, explain_too_new, import_onnxruntime
from pxdbg_runtime.limits.address_space import explain_memory_failure
from pxdbg_runtime.limits.threads import count_job_cpus
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from export.families import Family, Feed

__all__ = ["compute_images", "draw_event", "draw_feeds", "measure_seconds_per_image", "open_session"]

_BATCH_SIZE: Final = 2
_MAX_THREADS: Final = 8


def draw_event(family: Family, seed: int, event: int) -> dict[str, NDArray[np.float32]]:
    """Draw the standard normal values of one event, float32 (40, values) by the name of the draw."""
    values = create_stream("philox", seed, family.draws).draw(event)
    return {draw.name: each for draw, each in zip(family.draws, values, strict=True)}


def draw_feeds(family: Family, seed: int, n_images: int, batch_size: int = _BATCH_SIZE) -> list[Feed]:
    """Draw the inputs of the first images of a seed, in batches that do not cross events."""
    feeds: list[Feed] = []
    for first in range(0, n_images, N_SENSORS):
        draws = draw_event(family, seed, first // N_SENSORS)
        n_sensors = min(N_SENSORS, n_images - first)
        starts = range(0, n_sensors, batch_size)
        feeds += [family.build_feed(draws, range(start, min(start + batch_size, n_sensors))) for start in starts]
    return feeds


def open_session(model: onnx.ModelProto) -> InferenceSession:
    """Load a graph into ONNX Runtime on the CPU, with a thread for each CPU of the job, eight at most.

    Raises
    ------
    GraphError
        If ONNX Runtime refuses it.
    MemoryLimitError
        If there is too little memory.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(_MAX_THREADS, count_job_cpus().count)
    state = onnxruntime.capi.onnxruntime_pybind11_state
    refusals = state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException
    try:
        session: InferenceSession = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    except refusals as error:
        text = describe_onnxruntime_error(error)
        message = f"ONNX Runtime refuses the graph: {explain_too_new(one_line(error), None) or text}."
        raise explain_memory_failure(text, CPU) or GraphError(message) from error
    return session


def compute_images(model: onnx.ModelProto, feeds: Iterable[Feed]) -> Iterator[NDArray[np.float32]]:
    """Run a graph of one output on the CPU, batch by batch."""
    session = open_session(model)
    for feed in feeds:
        (images,) = session.run(None, feed)
        yield images


def measure_seconds_per_image(model: onnx.ModelProto, feeds: Sequence[Feed]) -> float:
    """Measure the seconds that one image takes on this machine, on the first batch after a warm-up."""
    images = compute_images(model, [feeds[0], feeds[0]])
    next(images)
    start = time.perf_counter()
    batch = next(images)
    return (time.perf_counter() - start) / len(batch)
