"""Generators used by threads, iterators, processes, joblib and asyncio make the digits of one thread."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest

from pxdbg_runtime import Generator
from pxdbg_runtime.sensors import select_layer
from tests.fresh_work import generate_event
from tests.thread_counts import count_threads, has_at_most

if TYPE_CHECKING:
    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.inference.latents import RandomStreamName
    from pxdbg_runtime.model.graph_file import GraphFile

N_EVENTS: Final = 4
SENSORS: Final = (*select_layer(1)[::2], *select_layer(2)[::3])
each_stream = pytest.mark.parametrize("stream", ["philox", "torch"])


def make(graph: GraphFile, stream: RandomStreamName = "philox") -> Generator:
    return Generator(graph.path, seed=5, provider="cpu", random_stream=stream, min_charge=7, batch_size=4, verify=False)


generate: Final = partial(generate_event, sensors=SENSORS)
"""Other processes import `generate_event` without this module."""


def list_expected(graph: GraphFile, stream: RandomStreamName = "philox") -> list[Digits]:
    found = [generate(make(graph, stream), event) for event in range(N_EVENTS)]
    assert len({digits.charge.tobytes() for digits in found}) == N_EVENTS
    return found


@each_stream
def test_eight_threads_on_one_generator(stream: RandomStreamName, event_wide_graph: GraphFile) -> None:
    expected, generator = list_expected(event_wide_graph, stream), make(event_wide_graph, stream)
    before = count_threads()  # of libraries that other tests used
    barrier = threading.Barrier(8)

    def generate_all(thread: int) -> list[Digits]:
        barrier.wait(timeout=60)
        events = [(event + thread) % N_EVENTS for event in range(N_EVENTS)]
        found = {event: generate(generator, event) for event in events}
        return [found[event] for event in range(N_EVENTS)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(generate_all, range(8))) == [expected] * 8
    assert has_at_most(before)


@each_stream
def test_two_interleaved_iterators(stream: RandomStreamName, event_wide_graph: GraphFile) -> None:
    expected, generator = list_expected(event_wide_graph, stream), make(event_wide_graph, stream)
    forwards, backwards = (generator.stream(order, SENSORS) for order in (range(N_EVENTS), range(N_EVENTS)[::-1]))
    pairs = list(zip(forwards, backwards, strict=True))
    assert [one for one, _ in pairs] == expected
    assert [other for _, other in pairs] == expected[::-1]


@each_stream
def test_an_iterator_that_is_dropped_half_way(stream: RandomStreamName, event_wide_graph: GraphFile) -> None:
    expected, generator = list_expected(event_wide_graph, stream), make(event_wide_graph, stream)
    before = count_threads()
    dropped = generator.stream(itertools.count(), SENSORS)
    assert next(dropped) == expected[0]
    assert next(dropped) == expected[1]
    del dropped
    assert has_at_most(before)  # no batch is computed for nobody
    assert list(generator.stream(range(N_EVENTS), SENSORS)) == expected


@pytest.mark.parametrize("method", [each for each in multiprocessing.get_all_start_methods() if each != "fork"])
def test_processes_share_a_generator(method: str, latent_graph: GraphFile) -> None:
    """Each process makes its own session from the pickled arguments; test_generator_copies forks."""
    expected, generator = list_expected(latent_graph), make(latent_graph)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(generate, [generator] * N_EVENTS, range(N_EVENTS))) == expected


FORKED: Final = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
warnings.simplefilter("ignore")  # newer Pythons warn of every fork beside threads
from pxdbg_runtime import Generator

generator = Generator(sys.argv[1], seed=5, provider="cpu", min_charge=7, verify=False)

def generate(event):  # with the generator of the parent
    return generator.generate(event)

if __name__ == "__main__":
    expected = [generator.generate(event) for event in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(generate, range(4), timeout=60)) == expected
    print("equal")
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_pool_of_forks_uses_the_generator_of_its_parent(latent_graph: GraphFile) -> None:
    command = [sys.executable, "-c", FORKED, str(latent_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib(backend: str, latent_graph: GraphFile) -> None:
    joblib = pytest.importorskip("joblib")
    expected, generator = list_expected(latent_graph), make(latent_graph)
    with joblib.Parallel(n_jobs=2, backend=backend) as parallel:
        found = parallel(joblib.delayed(generate)(generator, event) for event in range(N_EVENTS))
    assert found == expected
    if backend == "loky":
        joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


def test_asyncio_tasks(event_wide_graph: GraphFile) -> None:
    expected, generator = list_expected(event_wide_graph), make(event_wide_graph)

    async def generate_all() -> list[Digits]:
        return await asyncio.gather(*(asyncio.to_thread(generate, generator, event) for event in range(N_EVENTS)))

    assert asyncio.run(generate_all()) == expected


def test_an_asyncio_task_that_is_cancelled_harms_no_other(event_wide_graph: GraphFile) -> None:
    """Its thread goes on until its event is done, as threads do; nobody sees the event."""
    expected, generator = list_expected(event_wide_graph), make(event_wide_graph)

    async def cancel_one() -> list[Digits]:
        tasks = [asyncio.create_task(asyncio.to_thread(generate, generator, event)) for event in range(N_EVENTS)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await tasks[0]
        return await asyncio.gather(*tasks[1:])

    assert asyncio.run(cancel_one()) == expected[1:]
