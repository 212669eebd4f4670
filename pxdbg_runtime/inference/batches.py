"""Compute images in batches: a second thread computes the next batch while the caller uses one.

Python runs signal handlers in the main thread only, and only after a call of ONNX Runtime returns. So graphs run in the
second thread; the main thread waits where a signal handler can raise an exception, and then terminates the run.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pxdbg_runtime.errors import InferenceError
from pxdbg_runtime.task_threads import Task, TaskThreads, cancel_tasks

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.inference.session import ImageSession

__all__ = ["Batch", "compute_batches"]


@dataclass(frozen=True)
class Batch:
    """Images to compute in one call of ONNX Runtime.

    Attributes
    ----------
    event : int
        Event number.
    sensors : sequence of int
        Indices of the sensors, one an image.
    draws : mapping of str to ndarray of float32, shape (40, values)
        The event's draws by name.
    """

    event: int
    sensors: Sequence[int]
    draws: Mapping[str, NDArray[np.float32]]


def compute_batches(
    session: ImageSession, batches: Iterable[Batch], batch_size: int
) -> Generator[tuple[Batch, Images], None, None]:
    """Compute images in batches, each while the caller uses the one before.

    If the caller closes the iterator, or an exception such as KeyboardInterrupt is raised, the running batches are
    terminated: no graph runs after the iterator has ended. A caller that may not use all batches must close it. A fork
    can close the iterator of its parent process, but not go on with it.

    Parameters
    ----------
    session : ImageSession
    batches : iterable of Batch
        Taken two ahead of the caller. If it raises an error, the batches before are computed first.
    batch_size : int
        Images of the largest batch.

    Yields
    ------
    batch : Batch
    images : ndarray of float32 or uint8, shape (len(batch.sensors), 250, 768)
        Valid until the next batch is requested.

    Raises
    ------
    InferenceError
        If ONNX Runtime fails, or in a fork of the process in which the iterator began.
    MemoryLimitError
        If there is too little memory.
    ThreadLimitError
        If the system cannot start a second thread.
    """
    buffers = [session.take_buffer(batch_size) for _ in range(2)]
    run = session.create_run_options()
    kept_worker = session.worker
    worker = kept_worker or TaskThreads()
    started: deque[tuple[Batch, Task[Images]]] = deque()
    remaining, error = iter(batches), None
    process = os.getpid()
    try:
        for number in itertools.count():
            if os.getpid() != process:
                message = (
                    f"Images that process {process} began to compute cannot be continued in its fork {os.getpid()}, "
                    "which has no copy of its threads. Create the generator in the process that uses it."
                )
                raise InferenceError(message)
            try:
                batch = None if error else next(remaining, None)
            except Exception as raised:  # noqa: BLE001  # raised again below
                batch, error = None, raised
            if batch is not None:
                task = Task(partial(session.compute_images, batch.sensors, batch.draws, buffers[number % 2], run))
                started.append((batch, task))  # before it can run
                worker.submit(task)
            if number == 0 and batch is not None:
                continue
            if not started:
                break
            images = started[0][1].wait()
            yield started.popleft()[0], images
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame, and would keep the buffers
    finally:
        run.terminate = True
        if os.getpid() == process:  # in a fork no thread runs that could be waited for
            # Wait: a thread inside ONNX Runtime while the interpreter exits would abort the process.
            cancel_tasks(task for _, task in started)
            if kept_worker is None:
                worker.end()
        for buffer in buffers:
            session.give_back(buffer)
