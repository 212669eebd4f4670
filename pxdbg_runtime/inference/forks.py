"""Guard sessions in forks of their process.

A fork copies the memory of the process, but only the thread that forked. Tried with ONNX Runtime 1.21 to 1.32 on a
CPU: the copy of a session runs and computes the same images, also with several threads within an operator, whose work
the calling thread then does alone. The copy hangs if operators run in parallel (``ninter``), and may hang if another
thread was running the graph at the time of the fork. When it is destroyed, it hangs or crashes, waiting for threads
that do not exist.
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
    """Refuses to run a session in a fork that cannot run it, and prevents its destruction in forks.

    Parameters
    ----------
    session : object
        ONNX Runtime's session.
    obstacle : str or None
        Why no fork can run the session; None if a fork can.
    """

    def __init__(self, session: object, obstacle: str | None) -> None:
        self._session = session
        self._obstacle = obstacle
        self._process = os.getpid()
        self._calls: set[tuple[int, int]] = set()
        _guards.add(self)

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Enter this context for the time of a run.

        Raises
        ------
        InferenceError
            If the session belongs to a parent process and cannot run here.
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
        # Calls of other threads at the time of the fork never end here, because the fork lacks these threads.
        if obstacle is None and any(caller != process for caller, _ in tuple(self._calls)):
            obstacle = "another thread was running the graph when the process was forked"
        if obstacle is not None:
            message = (
                f"A generator that was created in process {self._process} cannot run in its fork {process}: "
                f"{obstacle}. Create the generator in the process that uses it (with multiprocessing: the start "
                "method 'spawn')."
            )
            raise InferenceError(message)


_guards: Final[weakref.WeakSet[ForkGuard]] = weakref.WeakSet()


def _keep_sessions() -> None:
    for guard in _guards:
        guard.keep()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)
