"""Threads that run tasks: results, errors, cancelled tasks, and when threads end."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from typing import Final

import pytest

from pxdbg_runtime.task_threads import Task, TaskThreads, cancel_tasks
from tests.thread_counts import count_threads, has_at_most

LONG_S: Final = 60.0


class Thing:
    """Something that tasks refer to."""


def keep_nothing(_thing: Thing) -> int:
    return 1


def fail(_thing: Thing) -> int:
    message = "the task's own"
    raise ValueError(message)


def test_results_and_errors_reach_the_caller() -> None:
    threads = TaskThreads()
    assert threads.run(lambda: 3) == 3
    with pytest.raises(ValueError, match="the task's own"):
        threads.run(lambda: fail(Thing()))
    with pytest.raises(SystemExit, match="5"):
        threads.run(lambda: exit_with(5))
    assert threads.run(threading.get_ident) == threads.run(threading.get_ident) != threading.get_ident()
    threads.end()


def exit_with(code: int) -> None:
    raise SystemExit(code)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_end(n_threads: int) -> None:
    before = count_threads()
    threads = TaskThreads(n_threads)
    begun = Task(lambda: 1)
    threads.submit(begun)
    assert begun.wait() == 1
    for _ in range(2):
        threads.end()
        assert has_at_most(before)
    TaskThreads(n_threads).end()  # before they have begun
    assert has_at_most(before)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_threads_end_with_what_refers_to_them(n_threads: int) -> None:
    before, done = count_threads(), threading.Event()
    threads = TaskThreads(n_threads)
    threads.submit(Task(done.set))
    del threads
    assert done.wait(LONG_S)
    assert has_at_most(before)


def test_two_threads_run_tasks_at_the_same_time() -> None:
    threads, both = TaskThreads(2), threading.Barrier(2, timeout=LONG_S)
    tasks = [Task(both.wait) for _ in range(2)]
    for task in tasks:
        threads.submit(task)
    assert sorted(task.wait() for task in tasks) == [0, 1]
    threads.end()


def test_a_cancelled_task_does_not_run() -> None:
    threads, done = TaskThreads(), []
    runs, goes_on = threading.Event(), threading.Event()

    def wait_to_go_on() -> None:
        runs.set()
        assert goes_on.wait(LONG_S)
        done.append("first")

    first = Task(wait_to_go_on)
    second = Task(lambda: done.append("second"))
    for task in (first, second):
        threads.submit(task)
    assert runs.wait(LONG_S)
    second.cancel()
    goes_on.set()
    cancel_tasks([first, second, Task(lambda: done.append("never submitted"))])
    threads.end()
    assert done == ["first"]


def test_nothing_that_a_task_uses_outlives_it() -> None:
    """Also without a collection of garbage: tasks use images, which are large."""
    threads, thing = TaskThreads(), Thing()
    watched = weakref.ref(thing)
    ended, failed, cancelled, unread = (
        Task(partial(function, thing)) for function in (keep_nothing, fail, keep_nothing, fail)
    )
    gc.disable()
    try:
        cancelled.cancel()
        for task in (ended, failed, cancelled, unread):
            threads.submit(task)
        assert ended.wait() == 1
        with pytest.raises(ValueError, match="the task's own"):
            failed.wait()
        cancel_tasks([unread])
        threads.run(lambda: None)
        del thing
        assert watched() is None
    finally:
        gc.enable()
    threads.end()
