"""The fork in which ROOT reads a file first: how crashes and interrupts end it."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from pxdbg_runtime.formats.root_library import import_root, run_in_fork

pytest.importorskip("ROOT", reason="pip install 'pxdbg-runtime[root]'")


def test_a_crash_ends_the_fork_at_once() -> None:
    """ROOT's handler would run the exit functions of all libraries, which may wait for threads that a fork lacks."""
    import_root("A test")
    for number in (signal.SIGSEGV, signal.SIGABRT):
        assert run_in_fork(partial(signal.raise_signal, number)) == -number
    assert run_in_fork(lambda: None) == 0


class StopError(Exception):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("moment", ["fork", "wait"])
def test_an_interrupt_ends_the_fork(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    parent, fork, children = os.getpid(), os.fork, []
    # Python loses what a handler raises in a hook after a fork: the signal waits for the end of the hooks.
    forked, end_of_fork = os.pipe()

    def fork_and_keep_the_number() -> int:
        child = fork()
        if child:
            children.append(child)
            os.write(end_of_fork, b".")
            if moment == "fork":
                signal.raise_signal(signal.SIGUSR1)
        return child

    def read() -> None:
        os.read(forked, 1)
        if moment == "wait":
            os.kill(parent, signal.SIGUSR1)
        time.sleep(60)

    def stop(number: int, frame: object) -> None:
        raise StopError(number, frame)

    monkeypatch.setattr(os, "fork", fork_and_keep_the_number)
    former = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(StopError, match=str(int(signal.SIGUSR1))):
            run_in_fork(read)
    finally:
        signal.signal(signal.SIGUSR1, former)
        os.close(forked)
        os.close(end_of_fork)
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(children[0], 0)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
