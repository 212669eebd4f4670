from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from artifacts.standins import simulated_events, simulation
from artifacts.standins.__main__ import app as standin
from artifacts.standins.marginals import SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE, compute_mean_occupancies
from artifacts.standins.simulated_events import describe_simulation, simulate_events
from artifacts.standins.simulation import RAW_THRESHOLD, draw_occupancies, simulate_raw_charges
from pxdbg_runtime.command_line import app as pxdbg
from pxdbg_runtime.formats import read_digits
from pxdbg_runtime.formats.provenance import Provenance
from pxdbg_runtime.limits.threads import JobCpus
from pxdbg_runtime.sensors import N_U_CELLS, N_V_CELLS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits

LAYERS = np.array([sensor.layer for sensor in SENSORS])


@pytest.fixture(scope="module")
def events() -> list[Digits]:
    return list(simulate_events(range(5, 8), -3))


def test_sensors_have_the_mean_occupancies_of_their_layers() -> None:
    means = compute_mean_occupancies()
    assert means[LAYERS == 1].mean() == pytest.approx(0.0149, rel=0.01)
    assert means[LAYERS == 2].mean() == pytest.approx(0.0051, rel=0.01)


def test_occupancies_spread_around_the_means() -> None:
    occupancies = draw_occupancies(20_000, np.random.default_rng(1))
    assert occupancies.mean(0) == pytest.approx(compute_mean_occupancies(), rel=0.005)
    relative = occupancies.std(0) / occupancies.mean(0)
    assert relative[LAYERS == 1] == pytest.approx(0.0648, rel=0.03)
    assert relative[LAYERS == 2] == pytest.approx(0.1129, rel=0.03)


def test_a_sensor_has_the_occupancy_asked_for_and_depends_on_its_seed() -> None:
    for occupancy, layer in ((0.0149, 1), (0.0051, 2)):
        raw = simulate_raw_charges(occupancy, layer, 3)
        assert raw.shape == (N_U_CELLS, N_V_CELLS)
        assert (raw >= RAW_THRESHOLD).mean() == pytest.approx(occupancy, rel=0.01)
        assert np.array_equal(raw, simulate_raw_charges(occupancy, layer, 3))
        assert not np.array_equal(raw, simulate_raw_charges(occupancy, layer, 4))


@pytest.mark.slow
def test_digits_have_the_spectrum_of_the_marginals(events: list[Digits]) -> None:
    hits = np.sort(np.concatenate([digits.charge for digits in events])).astype(np.float64)
    assert hits[0] == 7
    cumulative = np.searchsorted(hits, np.arange(7, 256)) / len(hits)
    expected = np.interp(np.arange(7, 256), SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE)
    assert np.abs(cumulative - expected).max() < 0.015


def test_digits_are_those_of_the_real_background_in_number_and_order(events: list[Digits]) -> None:
    assert np.mean([len(digits) for digits in events]) == pytest.approx(69_000, rel=0.15)
    for number, digits in enumerate(events, start=5):
        assert set(digits.event.tolist()) == {number}
        assert digits.charge.min() == 7
        keys = np.stack([digits.sensor_id, digits.u_cell, digits.v_cell]).astype(np.int64)
        assert (np.diff(keys[0] * 250 * 768 + keys[1] * 768 + keys[2]) > 0).all()


def test_events_are_the_same_in_any_order_and_with_threads(events: list[Digits]) -> None:
    assert next(iter(simulate_events(range(7, 8), -3, n_threads=2))) == events[2]
    assert events[0] != events[1]
    assert next(iter(simulate_events(range(5, 6), 3))) != events[0]


def test_threads_share_one_charge_table(monkeypatch: pytest.MonkeyPatch) -> None:
    n_simulated = 0

    def simulate(_occupancy: float, _layer: int, _seed: int) -> NDArray[np.float32]:
        nonlocal n_simulated
        n_simulated += 1
        time.sleep(1e-4)  # so that other threads would begin their tables
        return np.linspace(RAW_THRESHOLD, 200, 100, dtype=np.float32)

    empty_cache = functools.cache(simulation.build_charge_table.__wrapped__)
    for module in (simulation, simulated_events):
        monkeypatch.setattr(module, "build_charge_table", empty_cache)
    monkeypatch.setattr(simulation, "simulate_raw_charges", simulate)
    next(simulate_events(range(1), 1, n_threads=4))
    assert n_simulated == 10 * len(SENSORS)


def test_the_description_survives_a_file() -> None:
    description = describe_simulation(range(3, 9), -3)
    assert Provenance.from_json(description.to_json()) == description
    assert str(description) == "simulation on numba, seed -3, stream philox"
    assert (description.nature, description.precision, description.graph_sha256) == ("simulation", None, None)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_the_command_writes_a_file_that_pxdbg_shows(suffix: str, events: list[Digits], tmp_path: Path) -> None:
    path = tmp_path / f"simulation.{suffix}"
    arguments = ["simulate", "--events", "1", "--first-event", "6", "--seed", "-3", "--output", str(path)]
    result = CliRunner().invoke(standin, arguments)
    assert result.exit_code == 0, result.output
    assert read_digits(path).digits == events[1]
    shown = CliRunner().invoke(pxdbg, ["show", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "simulation: Simulated clusters" in shown.output
    assert "graph SHA-256" not in shown.output


def test_the_command_takes_the_cpus_of_the_job_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def see(_events: range, _seed: int, *, n_threads: int) -> Iterator[Digits]:
        asked.append(n_threads)
        return iter(())

    cpus = JobCpus(count=3, limited_by="a test")
    monkeypatch.setattr("artifacts.standins.__main__.count_job_cpus", lambda: cpus)
    monkeypatch.setattr("artifacts.standins.__main__.simulate_events", see)
    for options in ((), ("--threads", "5")):
        CliRunner().invoke(standin, ["simulate", "--overwrite", "--output", str(tmp_path / "a.npz"), *options])
    assert asked == [3, 5]
