"""Benchmarks: measurements in new processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from benchmarks import fresh_work
from benchmarks.fresh_process import run_fresh
from benchmarks.memory import measure_peak
from benchmarks.scaling import list_layouts, measure_rate
from benchmarks.startup import run_command
from pxdbg_runtime.errors import ModelNotFoundError
from tests.fresh_work import allocate, fail, nothing, talk

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile

ALLOCATED_MB: Final = 200


def test_the_peak_of_a_process_is_what_it_allocated() -> None:
    (empty_mb,) = measure_peak(nothing)
    (filled_mb,) = measure_peak(allocate, str(ALLOCATED_MB))
    assert filled_mb - empty_mb == pytest.approx(ALLOCATED_MB, abs=10)


def test_the_size_of_the_process_that_measures_has_no_part_in_it() -> None:
    (before_mb,) = measure_peak(nothing)
    ballast = np.ones(300_000_000, dtype=np.uint8)
    (after_mb,) = measure_peak(nothing)
    assert ballast[-1] == 1
    assert after_mb == pytest.approx(before_mb, abs=10)


def test_a_process_gives_what_its_function_returned() -> None:
    assert run_fresh(allocate, "1").values == (1.0, 2.5)
    assert run_fresh(talk).values == (1.0,)


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="the new process ended with exit code 1: ValueError: this is why"):
        run_fresh(fail)


def test_a_cold_process_makes_an_event_in_three_parts(latent_graph: GraphFile) -> None:
    run = run_fresh(fresh_work.generate_event, str(latent_graph.path))
    assert len(run.values) == 3
    assert all(0 < seconds < 60 for seconds in run.values)
    assert 50e6 < run.peak_bytes < 1e9


@pytest.mark.slow
def test_the_command_makes_an_event_in_a_process_of_its_own(latent_graph: GraphFile) -> None:
    run_command(latent_graph.path)
    gone = latent_graph.path.with_name("gone.onnx")
    with pytest.raises(RuntimeError, match=r"pxdbg generate .* ended with exit code 1: Error: .*gone\.onnx"):
        run_command(gone)


def test_a_graph_makes_the_images_of_an_event(latent_graph: GraphFile) -> None:
    (seconds,) = fresh_work.run_graph(str(latent_graph.path))
    assert 0 < seconds < 60


@pytest.mark.parametrize(
    ("n_cores", "processes", "threads"),
    [
        (1, (1, 2, 4, 8), ()),
        (2, (1, 2, 4, 8), (2,)),
        (6, (1, 2, 4, 6, 8), (2, 4, 6)),
        (12, (1, 2, 4, 8, 12), (2, 4, 8, 12)),
    ],
)
def test_processes_and_threads_are_doubled(n_cores: int, processes: tuple[int, ...], threads: tuple[int, ...]) -> None:
    expected = [(number, 1) for number in processes] + [(1, number) for number in threads]
    assert list_layouts(n_cores) == tuple(expected)


@pytest.mark.slow
def test_events_are_made_by_several_processes(latent_graph: GraphFile) -> None:
    assert 1 < measure_rate(latent_graph.path, (2, 1), 6) < 10_000


@pytest.mark.slow
def test_a_generator_that_fails_in_a_process_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"gone\.onnx"):
        measure_rate(tmp_path / "gone.onnx", (2, 1), 6)
