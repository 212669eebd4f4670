"""An event's images in batches: while one batch is in use, the next one is computed in a second thread.

Python runs signal handlers in the main thread alone, and not before a call of ONNX Runtime returns. So graphs run in
the second thread, the main one waits where an exception can reach it, and then ends the run.
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

    from pxdbg_runtime.digitisation.kernels import Images
    from pxdbg_runtime.inference.session import ImageSession

__all__ = ["compute_batches"]


def compute_batches(
    session: ImageSession, batches: Sequence[range], draws: Mapping[str, NDArray[np.float32]]
) -> Generator[tuple[range, Images], None, None]:
    """Compute images in batches, the next one while one is in use.

    A batch that nobody waits for any more, because the caller closed the iterator or an exception such as
    KeyboardInterrupt came, is terminated: nothing runs when the iterator has ended. Callers that may not use up all
    batches must close it.

    Parameters
    ----------
    session : ImageSession
    batches : sequence of range
        Indices of the sensors of each batch.
    draws : mapping of str to ndarray of float32, shape (40, values)
        The event's draws by name.

    Yields
    ------
    sensors : range
    images : ndarray of float32 or uint8, shape (len(sensors), 250, 768)
        Good until the next ones are asked for.

    Raises
    ------
    InferenceError
        If ONNX Runtime fails.
    ThreadLimitError
        If the system starts no second thread.
    """
    buffers = [session.buffer(max(map(len, batches))) for _ in batches[:2]]
    run = session.new_run()
    worker = ThreadPoolExecutor(max_workers=1)
    coming: Future[Images] | None = None
    try:
        for number, sensors in enumerate(batches):
            images = coming.result() if coming else None
            with report_thread_limit():
                coming = worker.submit(session.images, sensors, draws, buffers[number % 2], run)
            if images is not None:
                yield batches[number - 1], images
        if coming:
            yield batches[-1], coming.result()
    finally:
        run.terminate = True
        _wait_for_end(worker, coming)


def _wait_for_end(worker: ThreadPoolExecutor, coming: Future[Images] | None) -> None:
    """Wait until no graph runs, even if a second signal comes: a thread inside ONNX Runtime would abort the process."""
    interruption: BaseException | None = None
    while coming and not coming.done():
        try:
            # Not by joining the thread: a join that is interrupted takes the thread for ended (Python 3.11).
            wait([coming])
        except BaseException as error:  # noqa: BLE001  # raised by a signal's handler, and again below
            interruption = error
    worker.shutdown()
    if interruption is not None:
        raise interruption
