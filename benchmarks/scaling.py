"""``scaling``: events a second of more and more processes, and of threads of one process."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import time
from collections import abc
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from threading import BrokenBarrierError
from typing import ClassVar, Final

from benchmarks.benchmark import Benchmark, Plan
from benchmarks.environment import count_cores
from benchmarks.events import SEED
from benchmarks.graphs import CPU_PRECISIONS
from benchmarks.timing import EVENTS_PER_SECOND, Case, Run
from pxdbg_runtime import Generator
from pxdbg_runtime.model.card import Precision

_EVENTS_PER_WORKER: Final = 5
_QUICK_EVENTS_PER_WORKER: Final = 2

_FEW_PROCESSES: Final = (1, 2, 4, 8)
"""Tried on every machine: more processes than cores should cost nothing but memory."""

Layout = tuple[int, int]
"""Number of processes, and of threads in each."""


def list_layouts(n_cores: int) -> tuple[Layout, ...]:
    """List the layouts: processes of one thread, up to the cores and beyond, and threads of one process.

    Examples
    --------
    >>> list_layouts(2)
    ((1, 1), (2, 1), (4, 1), (8, 1), (1, 2))
    """
    doubled = [2**power for power in range(n_cores.bit_length())]
    n_processes = sorted({*doubled, *_FEW_PROCESSES, n_cores})
    n_threads = sorted({*doubled, n_cores} - {1})
    return (*((number, 1) for number in n_processes), *((1, number) for number in n_threads))


def measure_rate(graph: Path, layout: Layout, n_events: int) -> float:
    """Generate events in new processes, and return the events a second of all processes together."""
    n_processes, n_threads = layout
    # Spawned, so that each process creates a session.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_processes)
    with ProcessPoolExecutor(
        n_processes, mp_context=context, initializer=_start, initargs=(graph, n_threads, barrier)
    ) as pool:
        # At the barrier each process holds exactly one of these calls: all are warm when they return. If a generator
        # fails, its error is the only one.
        list(pool.map(_meet, range(n_processes)))
        start = time.perf_counter()
        list(pool.map(_generate, range(n_events)))
        return n_events / (time.perf_counter() - start)


class _Worker:
    """What a process keeps from call to call."""

    create: ClassVar[abc.Callable[[], Generator]]
    barrier: ClassVar[Barrier]
    generate: ClassVar[abc.Callable[[int], object]]


def _start(graph: Path, n_threads: int, barrier: Barrier) -> None:
    """Keep what a process needs; the error of a generator that is created here would not reach the caller."""
    logging.getLogger("pxdbg_runtime").setLevel(logging.ERROR)  # the report names the weights
    _Worker.create = partial(Generator, graph, provider="cpu", seed=SEED, nintra=n_threads)
    _Worker.barrier = barrier


def _meet(_number: int) -> None:
    """Create the generator of a process, warm it up, and wait for the other processes, unless one fails."""
    try:
        generator = _Worker.create()
        generator.generate(0)
    except BaseException:
        _Worker.barrier.abort()
        raise
    _Worker.generate = generator.generate
    with contextlib.suppress(BrokenBarrierError):  # another process has aborted it
        _Worker.barrier.wait()


def _generate(event: int) -> None:
    _Worker.generate(event)


def _list_cases(plan: Plan) -> abc.Generator[tuple[Case, ...], None, None]:
    yield tuple(
        Case(
            rows=((family, precision, *map(str, layout)),),
            prepare=partial(_prepare, plan, family, precision, layout),
            unit=EVENTS_PER_SECOND,
        )
        for family in plan.families
        for precision in CPU_PRECISIONS
        for layout in list_layouts(count_cores())
    )


def _prepare(plan: Plan, family: str, precision: Precision, layout: Layout) -> Run:
    n_processes, n_threads = layout
    n_workers = max(n_processes, n_threads)
    n_events = (_QUICK_EVENTS_PER_WORKER if plan.quick else _EVENTS_PER_WORKER) * n_workers
    graph = plan.workspace.find_graph(family, precision).path.resolve()
    return lambda: (measure_rate(graph, layout, n_events),)


BENCHMARK: Final = Benchmark(
    name="scaling",
    help="Events a second of 1, 2, 4, ... processes, and of threads.",
    columns=("model", "precision", "processes", "threads of each"),
    remarks=("Every sample starts new processes; the events are timed after each process has generated one.",),
    cases=_list_cases,
    title="Events a second",
)
