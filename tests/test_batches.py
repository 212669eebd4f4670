"""Batches that are computed ahead: a run that nobody waits for any more ends, even of a graph that never does."""

from __future__ import annotations

import _thread
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import closing
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from pxdbg_runtime.errors import InferenceError, ThreadLimitError
from pxdbg_runtime.inference.batches import Batch, compute_batches
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.task_threads import TaskThreads
from tests.graphs import EVENT_WIDE_CARD, event_wide_images, event_wide_model, write_graph
from tests.thread_counts import count_threads, has_at_most

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx

    from pxdbg_runtime.digitisation.digitiser import Images
    from pxdbg_runtime.model.graph_file import GraphFile

N_ITERATIONS: Final = 10**9
"""Of the loop for each sensor but the first: hours."""
LONG_S: Final = 120.0
"""More than anything here takes, if it ends."""

RUN_AND_INTERRUPT: Final = """
import os, signal, sys, threading, time
from pxdbg_runtime import Generator
from tests.thread_counts import has_at_most

generator = Generator(sys.argv[1], seed=1, provider="cpu", batch_size=1)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

def interrupt(numbers):
    for number in numbers:
        time.sleep(0.3 if number is numbers[0] else 0.05)
        signal.raise_signal(number) if os.name == "nt" else os.kill(os.getpid(), number)

for make, numbers in (
    (generator.generate, [signal.SIGINT]),
    (generator.generate_images, [signal.SIGTERM]),
    (lambda event: list(generator.stream([event])), [signal.SIGTERM, signal.SIGINT, signal.SIGINT]),
):
    sender = threading.Thread(target=interrupt, args=(numbers,))
    sender.start()
    try:
        make(0)
    except (KeyboardInterrupt, SystemExit) as error:
        raised = type(error).__name__
    while sender.is_alive():  # what comes after the clean-up is the caller's
        try:
            time.sleep(0.01)
        except (KeyboardInterrupt, SystemExit):
            pass
    print(raised, has_at_most(0), flush=True)
"""
END_AT_ONCE: Final = """
import os, signal, sys, threading, time
from pxdbg_runtime import Generator
generator = Generator(sys.argv[1], seed=1, provider="cpu", batch_size=1)
def interrupt():
    time.sleep(0.3)
    for _ in range(int(sys.argv[2])):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
threading.Thread(target=interrupt, daemon=True).start()
generator.generate(0)
"""
FORK_BETWEEN: Final = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
from pxdbg_runtime import SENSORS, Generator
from pxdbg_runtime.errors import InferenceError

batches = Generator(sys.argv[1], seed=1, provider="cpu", batch_size=1)._compute_batches([0], SENSORS)
next(batches)
for use in (batches.close, batches.__next__):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a child that hangs
        try:
            use()
        except InferenceError as error:
            print(str(error).partition(", ")[2], flush=True)
            os._exit(2)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
batches.close()
"""


def endless_model() -> onnx.ModelProto:
    """Make a graph that never ends but for sensor 0."""
    model = event_wide_model()
    iteration = helper.make_tensor_value_info("iteration", TensorProto.INT64, [])
    goes_on, still_goes_on = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("goes_on", "still_goes_on")
    )
    value, next_value = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("value", "next_value")
    )
    nodes = [
        helper.make_node("Identity", ["goes_on"], ["still_goes_on"]),
        helper.make_node("Mul", ["value", "one"], ["next_value"]),
    ]
    body = helper.make_graph(nodes, "body", [iteration, goes_on, value], [still_goes_on, next_value])
    (level,) = (node for node in model.graph.node if "level" in node.output)
    place = list(model.graph.node).index(level)
    level.input[0] = "late_level"
    for name, constant in (("many", np.int64(N_ITERATIONS)), ("yes", np.bool_(True))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(constant), name))
    model.graph.node.insert(
        place, helper.make_node("Loop", ["n_iterations", "yes", "flat_level"], ["late_level"], body=body)
    )
    model.graph.node.insert(place, helper.make_node("Mul", ["first_sensor", "many"], ["n_iterations"]))
    model.graph.node.insert(place, helper.make_node("ReduceMin", ["number"], ["first_sensor"], keepdims=0))
    return model


@pytest.fixture(scope="module")
def endless_graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    return write_graph(tmp_path_factory.mktemp("endless") / "endless.onnx", endless_model(), EVENT_WIDE_CARD)


def draw_latents(seed: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(40, n)).astype(np.float32) for name, n in (("latent", 2), ("mood", 3))}


def split(
    batches: Sequence[Sequence[int]], draws: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]
) -> list[Batch]:
    return [Batch(0, sensors, draws) for sensors in batches]


def test_batches_are_those_of_the_sensors_asked_for(event_wide_graph: GraphFile) -> None:
    draws = draw_latents(1)
    expected = event_wide_images(draws["latent"], draws["mood"])
    session = ImageSession(event_wide_graph, provider="cpu")
    selections: list[list[Sequence[int]]] = [
        [range(40)],
        [range(3, 4)],
        [range(3), (3, 4, 38), [30, 31, 39], range(1)],
    ]
    for batches in selections:
        computed = compute_batches(session, split(batches, draws), max(map(len, batches)))
        found = [(batch.sensors, images.copy()) for batch, images in computed]
        assert [sensors for sensors, _ in found] == batches
        for sensors, images in found:
            assert np.array_equal(images, expected[list(sensors)])


def test_a_session_that_keeps_a_thread_computes_every_event_in_it(
    event_wide_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session on a GPU keeps one; a CPU's is made to keep one here."""
    session, draws, threads = ImageSession(event_wide_graph, provider="cpu"), draw_latents(1), set()
    compute_images = session.compute_images

    def record_thread(*arguments: object) -> object:
        threads.add(threading.get_ident())
        return compute_images(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(session, "compute_images", record_thread)
    assert session.worker is None
    worker = TaskThreads()
    monkeypatch.setattr(session, "_worker", worker)
    expected = event_wide_images(draws["latent"], draws["mood"])
    for _ in range(2):
        with closing(compute_batches(session, split([range(5), range(5, 9), range(9, 40)], draws), 31)) as batches:
            assert np.array_equal(next(batches)[1], expected[:5])
    assert worker.run(threading.get_ident) in threads
    assert len(threads) == 1
    worker.end()


def test_a_second_thread_that_the_system_refuses_is_an_error_of_ours(
    event_wide_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    pair = split([range(1), range(1, 2)], draw_latents(1))
    batches = compute_batches(ImageSession(event_wide_graph, provider="cpu"), pair, 1)
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(ThreadLimitError, match=r"^Needed 1 more thread, but the system started 0"):
        next(batches)


def test_a_consumer_that_stops_ends_the_batch_that_is_computed_ahead(endless_graph: GraphFile) -> None:
    session = ImageSession(endless_graph, provider="cpu")
    n_threads = count_threads()
    start = time.monotonic()
    batches = compute_batches(session, split([range(1), range(1, 2)], draw_latents(1)), 1)
    assert next(batches)[0].sensors == range(1)
    batches.close()
    assert list(batches) == []
    assert has_at_most(n_threads)
    with pytest.raises(ValueError, match="the consumer's own"):
        _fail_in_use(session)
    assert time.monotonic() - start < LONG_S
    assert session.compute_images(range(1), draw_latents(1)).shape == (1, 250, 768)


def _fail_in_use(session: ImageSession) -> None:
    with closing(compute_batches(session, split([range(1), range(1, 2)], draw_latents(1)), 1)) as batches:
        for _ in batches:
            message = "the consumer's own"
            raise ValueError(message)


def test_an_error_of_the_events_keeps_no_buffers(event_wide_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ImageSession(event_wide_graph, provider="cpu")
    buffers: list[weakref.ref[object]] = []
    take = session.take_buffer

    def take_and_note(n_images: int) -> Images:
        buffers.append(weakref.ref(buffer := take(n_images)))
        return buffer

    def fail() -> Iterator[Batch]:
        yield Batch(0, (0,), draw_latents(1))
        raise ValueError

    monkeypatch.setattr(session, "take_buffer", take_and_note)
    gc.disable()
    try:
        with pytest.raises(ValueError, match=r"^$"), closing(compute_batches(session, fail(), 1)) as batches:
            list(batches)
        del batches
        assert [buffer() is None for buffer in buffers] == [True, True]
    finally:
        gc.enable()


def test_a_run_that_is_terminated_is_an_error_of_whoever_waits_for_it(endless_graph: GraphFile) -> None:
    session = ImageSession(endless_graph, provider="cpu")
    run = session.create_run_options()
    run.terminate = True
    with pytest.raises(InferenceError, match="terminate flag"):
        session.compute_images(range(1, 2), draw_latents(1), run=run)


def test_a_signal_ends_a_graph_that_never_ends(endless_graph: GraphFile) -> None:
    command = [sys.executable, "-c", RUN_AND_INTERRUPT, str(endless_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["KeyboardInterrupt True", "SystemExit True", "SystemExit True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_waits_for_no_thread_of_its_parent(endless_graph: GraphFile) -> None:
    command = [sys.executable, "-c", FORK_BETWEEN, str(endless_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S)
    assert (done.returncode, done.stderr) == (0, "")
    refusal = "which has no copy of its threads. Create the generator in the process that uses it."
    assert done.stdout.splitlines() == ["0", refusal, "2"]


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends a process there")
@pytest.mark.parametrize("n_signals", [1, 3])
def test_a_process_that_is_interrupted_ends_without_an_abort(endless_graph: GraphFile, n_signals: int) -> None:
    command = [sys.executable, "-c", END_AT_ONCE, str(endless_graph.path), str(n_signals)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONG_S)
    assert done.returncode == -signal.SIGINT
    assert "terminate called" not in done.stderr
    assert done.stderr.endswith("KeyboardInterrupt\n")
