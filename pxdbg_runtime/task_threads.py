"""Run tasks in other threads, where no interrupt of the main thread can leave a lock locked.

A handler of a signal may raise in the main thread after any call. The locks of `threading` and `concurrent.futures`,
which Python's code holds, may then stay locked for ever. So functions in C start threads and wait for them here.
"""

from __future__ import annotations

import _thread
import atexit
import os
import weakref
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pxdbg_runtime.limits.address_space import require_address_space
from pxdbg_runtime.limits.threads import report_thread_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Task", "TaskThreads", "cancel_tasks"]

T = TypeVar("T")

_FREE_BYTES: Final = 1_000_000
"""Bytes that must be free before threads start: one that cannot allocate its first frame would never end its task."""


class Task(Generic[T]):
    """A function that one thread runs once.

    Parameters
    ----------
    function : callable
        Without arguments. The task does not refer to it any more when it has ended.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function: Callable[[], T] | None = function
        self._claims: dict[str, int] = {}
        self._has_ended = False
        self._end: SimpleQueue[None] = SimpleQueue()
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run it in this thread, unless another one has begun to, or cancelled it."""
        if self._claim() and self._function is not None:
            try:
                self._result = self._function()
            except BaseException as error:  # noqa: BLE001  # `wait` raises it
                self._error = error
            self._function = None
            self._has_ended = True
            self._end.put(None)
            del self  # the traceback of the error refers to this frame, and would keep the error

    def wait(self) -> T:
        """Wait for its end, and return its result or raise its error."""
        self._wait_for_end()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None
        return self._result

    def cancel(self) -> None:
        """Prevent its run, or wait for its end; if an interrupt is raised meanwhile, call it again."""
        if not self._claim():
            self._wait_for_end()
        self._function = self._error = None

    def _claim(self) -> bool:
        """Claim the task for this thread; false if another one had it. What an interrupt cuts short can be repeated."""
        thread = _thread.get_ident()
        return self._claims.setdefault("thread", thread) == thread

    def _wait_for_end(self) -> None:
        while not self._has_ended:  # an interrupt may lose what `get` returns
            self._end.get()


def cancel_tasks(tasks: Iterable[Task[Any]]) -> None:
    """Prevent the runs of tasks, or wait for their ends; an interrupt that is raised meanwhile is raised after that."""
    tasks, interrupt = tuple(tasks), None
    while True:
        try:
            for task in tasks:
                task.cancel()
            break
        except BaseException as error:  # noqa: BLE001  # from a signal handler; raised again below
            interrupt = error
    if interrupt is not None:
        try:
            raise interrupt
        finally:
            del interrupt  # its traceback refers to this frame


class TaskThreads:
    """Threads that run tasks in the order in which they are submitted.

    They end with `end`, when nothing refers to this object any more, or when the interpreter exits.

    Parameters
    ----------
    n_threads : int

    Raises
    ------
    ThreadLimitError
        If the system refuses a thread.
    MemoryLimitError
        If hardly any address space is left.
    """

    def __init__(self, n_threads: int = 1) -> None:
        require_address_space(_FREE_BYTES, "Another thread")
        self._process = os.getpid()
        self._tasks: SimpleQueue[object] = SimpleQueue()
        owner = weakref.ref(self, self._tasks.put)
        self._loops = [_Loop(self._tasks, owner) for _ in range(n_threads)]
        for loop in self._loops:
            with report_thread_limit():
                _thread.start_new_thread(loop.run, ())

    @property
    def belong_to_this_process(self) -> bool:
        """Whether this is the process that started the threads, not a fork of it."""
        return os.getpid() == self._process

    def submit(self, task: Task[Any]) -> None:
        """Let a thread run a task; raises `RuntimeError` when the interpreter exits."""
        if not _is_open:
            message = "No thread runs a task while the interpreter exits."
            raise RuntimeError(message)
        self._tasks.put(task)

    def run(self, function: Callable[[], T]) -> T:
        """Run a function, and return its result or raise its error. When the interpreter exits, this thread runs it.

        Raises
        ------
        RuntimeError
            In a fork of the process, which has no copy of its threads.
        """
        if not self.belong_to_this_process:
            message = (
                f"What process {self._process} began cannot go on in its fork {os.getpid()}, which has no copy of its "
                "threads: go on in that process."
            )
            raise RuntimeError(message)
        if not _is_open:
            return function()
        task = Task(function)
        self._tasks.put(task)
        return task.wait()

    def end(self) -> None:
        """End the threads, and wait until they have; a task that has not begun may never run. A fork does nothing."""
        if not self.belong_to_this_process:
            return
        self._tasks.put(None)
        cancel_tasks(self._loops)


class _Loop(Task[None]):
    """Runs tasks in a thread until it takes something else from their queue: None, or the reference to their owner."""

    def __init__(self, tasks: SimpleQueue[object], owner: weakref.ref[TaskThreads]) -> None:
        super().__init__(self._run_tasks)
        self.tasks = tasks
        self._owner = owner  # kept, so that it is put into the queue when its object is deleted

    def _run_tasks(self) -> None:
        _running.add(self)
        while _is_open and isinstance(task := self.tasks.get(), Task):
            task.run()
            del task
        self.tasks.put(None)  # for the other threads
        _running.discard(self)


_is_open = True
"""Whether threads run tasks: not when the interpreter exits."""
_running: Final[set[_Loop]] = set()


def _end_threads() -> None:
    """End all threads: one that returns from ONNX Runtime when the interpreter has exited would abort the process."""
    global _is_open  # noqa: PLW0603
    _is_open = False
    for loop in _running.copy():
        loop.tasks.put(None)
        loop.cancel()


atexit.register(_end_threads)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_running.clear)  # a fork has no copy of its parent's threads
