"""``scaling``: events a second on one core and on all, as processes and as threads of one process."""

from __future__ import annotations

import logging
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, ClassVar, Final

from benchmarks.environment import core_count, describe_environment
from benchmarks.events import SEED
from benchmarks.graphs import CPU_PRECISIONS
from benchmarks.report import Report, measurement_table
from benchmarks.timing import Case, Measurement, Run, interleaved
from pxdbg_runtime import Generator

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from benchmarks.plan import Plan
    from pxdbg_runtime.model.card import Precision

__all__ = ["Layout", "events_per_second", "layouts", "measure"]

_COLUMNS: Final = ("model", "precision", "processes", "threads of each")
_EVENTS_PER_CORE: Final = 5
_QUICK_EVENTS_PER_CORE: Final = 2
_REMARK: Final = "Every sample starts its processes anew; the events are timed once all have made one to warm up."

Layout = tuple[int, int]
"""Processes, and threads of each."""


def measure(plan: Plan) -> Report:
    """Measure all layouts of all models and precisions, interleaved."""
    environment = describe_environment()
    cases = tuple(
        _case(plan, family, precision, layout)
        for family in plan.families
        for precision in CPU_PRECISIONS
        for layout in layouts(core_count())
    )
    measurements: tuple[Measurement, ...] = interleaved(cases, plan.rounds, plan.log)
    return Report(
        command="scaling",
        environment=environment,
        remarks=(*plan.workspace.remarks(plan.families), _REMARK),
        columns=_COLUMNS,
        measurements=measurements,
        tables=(measurement_table("Events a second", _COLUMNS, measurements),),
    )


def layouts(n_cores: int) -> tuple[Layout, ...]:
    """List the ways to use one core and all.

    Examples
    --------
    >>> layouts(8)
    ((1, 1), (8, 1), (1, 8))
    """
    return tuple(dict.fromkeys(((1, 1), (n_cores, 1), (1, n_cores))))


def events_per_second(graph: Path, layout: Layout, n_events: int) -> float:
    """Generate events in fresh processes, and give their rate.

    Parameters
    ----------
    graph : Path
    layout : tuple of int
        Processes, and threads of each.
    n_events : int
        All processes together.
    """
    n_processes, n_threads = layout
    # Workers are spawned, so that each makes a session of its own.
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_processes)
    with ProcessPoolExecutor(
        n_processes, mp_context=context, initializer=_start, initargs=(graph, n_threads, barrier)
    ) as pool:
        # At the barrier each process holds exactly one of these calls: all are warm when they return.
        list(pool.map(_meet, range(n_processes)))
        start = time.perf_counter()
        list(pool.map(_generate, range(n_events)))
        return n_events / (time.perf_counter() - start)


def _case(plan: Plan, family: str, precision: Precision, layout: Layout) -> Case:
    n_processes, n_threads = layout
    per_core = _QUICK_EVENTS_PER_CORE if plan.quick else _EVENTS_PER_CORE

    def prepare() -> Run:
        graph = plan.workspace.graph(family, precision).path.resolve()
        return lambda: (events_per_second(graph, layout, per_core * n_processes * n_threads),)

    labels = (family, precision, str(n_processes), str(n_threads))
    return Case(rows=(labels,), prepare=prepare, unit="events/s")


class _Worker:
    """What a process keeps from call to call."""

    generate: ClassVar[Callable[[int], object]]
    barrier: ClassVar[Barrier]


def _start(graph: Path, n_threads: int, barrier: Barrier) -> None:
    """Make the generator of a process and warm it up."""
    logging.getLogger("pxdbg_runtime").setLevel(logging.ERROR)  # the report says what the weights are
    generator = Generator(graph, provider="cpu", seed=SEED, nintra=n_threads)
    generator.generate(0)
    _Worker.generate = generator.generate
    _Worker.barrier = barrier


def _meet(_number: int) -> None:
    _Worker.barrier.wait()


def _generate(event: int) -> None:
    _Worker.generate(event)
