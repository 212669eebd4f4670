"""The quick form of the soak, and the soak itself: it must find memory that grows."""

from __future__ import annotations

import mmap
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from pxdbg_runtime import Generator
from pxdbg_runtime.formats import read_digits
from tests.soak import LIMIT_KB, Soak, measure_resident_kb, soak

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
MAX_MORE_KB: Final = 20_000


@pytest.mark.slow
def test_some_hundred_events_take_no_more_memory_than_a_few(event_wide_graph: GraphFile, tmp_path: Path) -> None:
    generator = Generator(event_wide_graph.path, seed=1, provider="cpu", min_charge=30)
    # A process of its own: one that ran other tests hands out memory in other steps.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        few = pool.submit(soak, generator, 20, tmp_path / "few.npz").result()
        many = pool.submit(soak, generator, 100, tmp_path / "many.npz").result()
    assert (few.events, many.events) == (20, 100)
    assert read_digits(tmp_path / "many.npz").n_events == 100
    assert many.resident_kb[-1] - few.resident_kb[-1] < MAX_MORE_KB


@pytest.mark.parametrize("growth_kb", [0.0, 0.5, 4.0])
def test_the_slope_is_that_of_the_memory(growth_kb: float) -> None:
    at_event = np.arange(0, 1000, 5.0)
    noise = np.random.default_rng(1).normal(0, 100, len(at_event))
    warm_up = 50_000 * np.exp(-at_event / 20)
    resident = 100_000 - warm_up + growth_kb * at_event + noise
    result = Soak(events=1000, digits=0, seconds=1.0, resident_kb=resident, at_event=at_event)
    assert result.slope_kb == pytest.approx(growth_kb, abs=5 * result.slope_error_kb + 0.02)
    assert (result.slope_kb - 2 * result.slope_error_kb > LIMIT_KB) == (growth_kb > LIMIT_KB)


def test_memory_that_is_taken_is_measured() -> None:
    with mmap.mmap(-1, 50_000_000) as taken:  # pages that no earlier test can have freed
        before = measure_resident_kb()
        for start in range(0, len(taken), mmap.PAGESIZE):
            taken[start] = 1
        assert 40_000 < measure_resident_kb() - before < 60_000
