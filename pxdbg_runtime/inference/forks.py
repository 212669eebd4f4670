"""What becomes of a session when its process is forked.

A fork copies the memory of all threads, but of the threads only the one that forked. Tried with ONNX Runtime 1.21 to 1.32 on a
CPU: the copy of a session runs and gives the same images, also with several threads within an operator, whose work the
calling thread then does alone. It hangs if operators run in parallel (``ninter``), and may if another thread was in the
middle of a run. And it hangs or crashes when it is destroyed, waiting for threads that are not there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ForkGuard"]


class ForkGuard:
    """Refuses the copy of a session in a fork where it cannot run, and keeps it from being destroyed there.

    Parameters
    ----------
    session : object
        ONNX Runtime's session.
    obstacle : str or None
        Why the session can run in no fork.
    """

    def __init__(self, session: object, obstacle: str | None) -> None:
        self._session = session
        self._obstacle = obstacle
        self._process = os.getpid()
        self._calls: set[tuple[int, int]] = set()
        _guards.add(self)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Hold for the time of a run.

        Raises
        ------
        InferenceError
            If the session is a parent process's and cannot run here.
        """
        self.check()
        call = os.getpid(), threading.get_ident()
        self._calls.add(call)
        try:
            yield
        finally:
            self._calls.discard(call)

    def keep(self) -> None:
        """Never destroy the session in this process."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))

    def check(self) -> None:
        """Raise `InferenceError` if the session is a parent process's and cannot run here."""
        process = os.getpid()
        if process == self._process:
            return
        obstacle = self._obstacle
        # Calls of other threads when the process was forked: no fork has those threads, so they never end here.
        if obstacle is None and any(caller != process for caller, _ in tuple(self._calls)):
            obstacle = "another thread was running the graph when the process was forked"
        if obstacle is not None:
            message = (
                f"A generator that was made in process {self._process} cannot run in its fork {process}: {obstacle}. Make the "
                "generator in the process that uses it (with multiprocessing: the start method 'spawn')."
            )
            raise InferenceError(message)


_guards: Final[weakref.WeakSet[ForkGuard]] = weakref.WeakSet()


def _keep_sessions() -> None:
    for guard in _guards:
        guard.keep()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)
