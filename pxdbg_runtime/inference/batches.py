"""Compute the images of an event in batches: a second thread computes the next batch while the caller uses one.

Python runs signal handlers in the main thread only, and only after a call of ONNX Runtime returns. So graphs run in the
second thread; the main thread waits where a signal handler can raise an exception, and then terminates the run.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from pxdbg_runtime.limits.threads import report_thread_limit

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.inference.session import ImageSession

__all__ = ["compute_batches"]


def compute_batches(
    session: ImageSession, batches: Sequence[Sequence[int]], draws: Mapping[str, NDArray[np.float32]]
) -> Generator[tuple[Sequence[int], Images], None, None]:
    """Compute images in batches, each while the caller uses the one before.

    If the caller closes the iterator, or an exception such as KeyboardInterrupt is raised, the running batch is
    terminated: no graph runs after the iterator has ended. A caller that may not use all batches must close it.

    Parameters
    ----------
    session : ImageSession
    batches : sequence of sequence of int
        Indices of the sensors of each batch; at least one batch.
    draws : mapping of str to ndarray of float32, shape (40, values)
        The event's draws by name.

    Yields
    ------
    sensors : sequence of int
        One of the batches.
    images : ndarray of float32 or uint8, shape (len(sensors), 250, 768)
        Valid until the next batch is requested.

    Raises
    ------
    InferenceError
        If ONNX Runtime fails.
    ThreadLimitError
        If the system cannot start a second thread.
    """
    buffers = [session.allocate_images(max(map(len, batches))) for _ in batches[:2]]
    run = session.create_run_options()
    kept_worker = session.worker
    worker = kept_worker or ThreadPoolExecutor(max_workers=1)
    pending: Future[Images] | None = None
    try:
        for number, sensors in enumerate(batches):
            images = pending.result() if pending else None
            with report_thread_limit():
                pending = worker.submit(session.compute_images, sensors, draws, buffers[number % 2], run)
            if images is not None:
                yield batches[number - 1], images
        if pending:
            yield batches[-1], pending.result()
    finally:
        run.terminate = True
        _wait_for_end(pending, None if kept_worker else worker)


def _wait_for_end(pending: Future[Images] | None, worker: ThreadPoolExecutor | None) -> None:
    """Wait until no graph runs, even if a signal arrives: a thread inside ONNX Runtime would abort the process."""
    interruption: BaseException | None = None
    while pending and not pending.done():
        try:
            # Not a join of the thread: in Python 3.11 an interrupted join marks the thread as ended.
            wait([pending])
        except BaseException as error:  # noqa: BLE001  # from a signal handler; raised again below
            interruption = error
    if worker is not None:
        worker.shutdown()
    if interruption is not None:
        raise interruption
