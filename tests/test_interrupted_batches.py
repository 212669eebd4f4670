"""Batches that are interrupted at any call, or left unfinished when the process exits: nothing hangs or runs on."""

from __future__ import annotations

import gc
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.inference.batches import Batch, compute_batches
from pxdbg_runtime.inference.session import ImageSession
from tests.graphs import latent_images
from tests.thread_counts import count_threads, has_at_most

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    import pytest
    from numpy.typing import NDArray

    from pxdbg_runtime.model.graph_file import GraphFile

LATENT: Final = np.random.default_rng(1).normal(size=(40, 2)).astype(np.float32)
LONG_S: Final = 60.0

EXIT: Final = """
import sys
from pxdbg_runtime import SENSORS, Generator

batches = Generator(sys.argv[1], seed=1, provider="cpu", batch_size=1)._compute_batches([0], SENSORS)
next(batches)
"""
EXIT_LATE: Final = """
import atexit, sys
atexit.register(lambda: next(batches))  # runs after the threads have ended
from pxdbg_runtime import SENSORS, Generator

batches = Generator(sys.argv[1], seed=1, provider="cpu", batch_size=1)._compute_batches([0], SENSORS)
next(batches)
"""


class Interrupt(BaseException):
    """As the exception of a signal, which comes after any call."""


def use_two_batches(session: ImageSession) -> list[NDArray[np.generic]]:
    """Compute two batches, while a third one begins that is not used."""
    split = [Batch(0, [sensor], {"latent": LATENT}) for sensor in range(5)]
    with closing(compute_batches(session, split, 1)) as batches:
        return [next(batches)[1].copy() for _ in range(2)]


def use_interrupted(session: ImageSession, number: int) -> bool:
    """Use batches, and raise `Interrupt` at the n-th call, where Python runs handlers; false if there are fewer."""
    n_calls = 0

    def interrupt(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal n_calls
        if event in {"call", "c_return"} and frame.f_code.co_filename.endswith(("batches.py", "task_threads.py")):
            n_calls += 1
            if n_calls == number:
                raise Interrupt

    former = sys.getprofile()
    sys.setprofile(interrupt)
    try:
        use_two_batches(session)
    except Interrupt:
        return True
    finally:
        sys.setprofile(former)
    return n_calls >= number


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S)


def test_batches_that_are_interrupted_at_any_call(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    session, n_threads, running = ImageSession(latent_graph, provider="cpu"), count_threads(), set()
    compute_images = session.compute_images

    def record(*arguments: object) -> object:
        run = object()
        running.add(run)
        try:
            return compute_images(*arguments)  # type: ignore[arg-type]
        finally:
            running.discard(run)

    monkeypatch.setattr(session, "compute_images", record)
    number = 1
    while use_interrupted(session, number):
        assert has_at_most(n_threads), number
        assert not running
        number += 1
    assert number > 50
    assert np.array_equal(use_two_batches(session), latent_images(LATENT)[:2, np.newaxis])


def test_batches_are_computed_without_locks_that_an_interrupt_could_leave_locked(latent_graph: GraphFile) -> None:
    """Locks that Python's code holds: the process would hang at the next use of one."""
    called: set[str] = set()
    session = ImageSession(latent_graph, provider="cpu")
    use_two_batches(session)
    gc.collect()  # what others leave to it may use locks
    gc.disable()
    former = sys.getprofile()
    sys.setprofile(lambda frame, _event, _argument: called.add(frame.f_code.co_filename))
    try:
        use_two_batches(session)
    finally:
        sys.setprofile(former)
        gc.enable()
    assert any(name.endswith("batches.py") for name in called)
    assert not [name for name in called if name.endswith("threading.py") or "concurrent" in name]


def test_a_process_exits_beside_batches_that_nobody_uses(latent_graph: GraphFile) -> None:
    done = run(EXIT, latent_graph.path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_batch_is_computed_when_the_threads_have_ended(latent_graph: GraphFile) -> None:
    done = run(EXIT_LATE, latent_graph.path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.endswith("RuntimeError: No thread runs a task while the interpreter exits.\n")
