"""Generators in other processes and threads: pickled, copied, forked or shared, they make the same digits or none."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest
from msgspec import structs

from pxdbg_runtime import Generator
from pxdbg_runtime.errors import GraphFileError, ModelNotFoundError
from tests.fresh_work import generate_event
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.inference.latents import RandomStreamName
    from pxdbg_runtime.model.graph_file import GraphFile

FORK: Final = """
import contextlib, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
from pxdbg_runtime import SENSORS, Generator
from pxdbg_runtime.errors import InferenceError

def fork(generator, leave):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # ends a child that hangs
        try:
            same = compute_image(generator) == expected
            result = 0 if same else 1
        except InferenceError as error:
            print(str(error).partition(": ")[2], flush=True)
            result = 2
        leave(result)
    return os.waitpid(pid, 0)[1]

def make(**arguments):
    return Generator(sys.argv[1], seed=3, provider="cpu", batch_size=2, **arguments)

def compute_image(generator):
    with contextlib.closing(generator._compute_batches([1], SENSORS)) as batches:
        return next(batches)[1].tobytes()

for arguments in ({"nintra": 1}, {"nintra": 2}, {"nintra": 4, "random_stream": "torch"}, {"ninter": 2}):
    expected = compute_image(make(**arguments))
    generator = make(**arguments)
    statuses = [fork(generator, os._exit)]
    compute_image(generator)
    statuses.append(fork(generator, os._exit))
    statuses.append(fork(generator, sys.exit))  # destroys the session, in vain
    assert compute_image(generator) == expected
    print(arguments, *(os.waitstatus_to_exitcode(status) for status in statuses), flush=True)
"""
FORK_BUSY: Final = """
import os, signal, sys, threading, warnings
warnings.simplefilter("ignore")
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import InferenceError

generator = Generator(sys.argv[1], seed=3, provider="cpu", batch_size=20, random_stream="torch", min_charge=7)
expected = generator.generate(1)
# Forked at a known point: a thread is in a run, or between two.
running, go_on = threading.Event(), threading.Event()
run = type(generator._session._session).run_with_iobinding
def wait_first(*arguments):
    running.set()
    assert go_on.wait(60)
    return run(generator._session._session, *arguments)
for is_in_run in (True, False):
    running.clear(), go_on.clear()
    if is_in_run:
        generator._session._session.run_with_iobinding = wait_first
        thread = threading.Thread(target=generator.generate, args=(0,))
        thread.start()
        assert running.wait(60)
        del generator._session._session.run_with_iobinding
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            os._exit(0 if generator.generate(1) == expected else 1)
        except InferenceError as error:
            print(error, flush=True)
            os._exit(2)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    go_on.set()
    thread.join()
    assert generator.generate(1) == expected
    print(is_in_run, status, flush=True)
"""


def pickle_and_unpickle(generator: Generator) -> Generator:
    made: Generator = pickle.loads(pickle.dumps(generator))
    return made


@pytest.mark.parametrize(
    ("copied", "stream"),
    [(pickle_and_unpickle, "philox"), (pickle_and_unpickle, "torch"), (copy.copy, "torch"), (copy.deepcopy, "torch")],
)
def test_a_copy_makes_the_same_digits_on_its_own(
    copied: Callable[[Generator], Generator], stream: RandomStreamName, latent_graph: GraphFile
) -> None:
    generator = Generator(
        latent_graph.path, random_stream=stream, nintra=2, ninter=2, batch_size=19, min_charge=7, provider_options={}
    )
    expected = [generator.generate(event) for event in range(2)]
    other = copied(generator)
    assert other._session is not generator._session
    assert other._stream is not generator._stream
    for name in ("seed", "card", "graph_sha256", "provider", "random_stream", "batch_size", "min_charge"):
        assert getattr(other, name) == getattr(generator, name)
    options = other._session._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 2)
    assert [other.generate(event) for event in range(2)] == expected


def test_a_spawned_process_makes_the_same_digits(
    latent_graph: GraphFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(latent_graph.path, tmp_path / "graph.onnx")
    monkeypatch.chdir(tmp_path)
    generator = Generator("graph.onnx", provider="cpu")
    monkeypatch.chdir(tmp_path.parent)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(generate_event, generator, 5)
        assert found.result() == generator.generate(5)


def test_a_process_with_another_graph_refuses(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    write_graph(path, latent_model(), LATENT_CARD)
    pickled = pickle.dumps(Generator(path, seed=1, provider="cpu"))
    other = write_graph(path, latent_model(), structs.replace(LATENT_CARD, min_charge=2))
    with pytest.raises(
        GraphFileError, match=rf"has the SHA-256 {other.sha256} here, but .* where the generator was created"
    ):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(ModelNotFoundError, match="not a file that exists"):
        pickle.loads(pickled)


def test_a_built_in_model_is_pickled_by_its_name() -> None:
    generator = Generator("resnet", seed=1)
    recipe = generator._recreate
    assert recipe.args == ("resnet",)
    assert recipe.keywords["precision"] == generator.card.precision
    assert recipe.keywords["provider"] == "CPUExecutionProvider"
    assert pickle_and_unpickle(generator).graph_sha256 == generator.graph_sha256


@pytest.mark.parametrize("stream", ["philox", "torch"])
def test_threads_may_share_a_generator(stream: RandomStreamName, event_wide_graph: GraphFile) -> None:
    generator = Generator(
        event_wide_graph.path, seed=1, provider="cpu", random_stream=stream, batch_size=20, min_charge=7
    )
    n_threads, n_events = 4, 4
    expected = [generator.generate(event) for event in range(n_events)]
    barrier = threading.Barrier(n_threads)

    def generate(event: int) -> Digits:
        barrier.wait(timeout=60)
        return generator.generate(event)

    with ThreadPoolExecutor(n_threads) as pool:
        assert list(pool.map(generate, range(n_events))) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_makes_the_same_digits_or_says_why_not(latent_graph: GraphFile) -> None:
    command = [sys.executable, "-c", FORK, str(latent_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {"make 4 threads" in line or "make 2 threads" in line for line in done.stderr.splitlines()} <= {True}
    refusal = (
        "with ninter=2 it needs threads that a fork does not copy. Create the generator in the process that uses it "
        "(with multiprocessing: the start method 'spawn')."
    )
    assert done.stdout.splitlines() == [
        "{'nintra': 1} 0 0 0",
        "{'nintra': 2} 0 0 0",
        "{'nintra': 4, 'random_stream': 'torch'} 0 0 0",
        *[refusal] * 3,
        "{'ninter': 2} 2 2 2",
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_beside_a_thread_that_generates(latent_graph: GraphFile) -> None:
    command = [sys.executable, "-c", FORK_BUSY, str(latent_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    refusal, *statuses = done.stdout.splitlines()
    assert "another thread was running the graph when the process was forked. Create the generator in" in refusal
    assert statuses == ["True 2", "False 0"]
