from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from artifacts.standins.__main__ import app as standin
from artifacts.standins.simulated_events import how_simulated, simulated_events
from pxdbg_runtime.command_line import app as pxdbg
from pxdbg_runtime.formats import read_digits
from pxdbg_runtime.formats.provenance import Provenance
from pxdbg_runtime.limits.threads import JobCpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime.digits import Digits


@pytest.fixture(scope="module")
def events() -> list[Digits]:
    return list(simulated_events(range(5, 8), -3))


def test_events_are_the_same_in_any_order_and_with_threads(events: list[Digits]) -> None:
    assert next(iter(simulated_events(range(7, 8), -3, n_threads=2))) == events[2]
    assert events[0] != events[1]
    assert next(iter(simulated_events(range(5, 6), 3))) != events[0]


def test_digits_are_those_of_the_real_background_in_number_and_order(events: list[Digits]) -> None:
    assert np.mean([len(digits) for digits in events]) == pytest.approx(69_000, rel=0.15)
    for number, digits in enumerate(events, start=5):
        assert set(digits.event.tolist()) == {number}
        assert digits.charge.min() == 7
        keys = np.stack([digits.sensor_id, digits.u_cell, digits.v_cell]).astype(np.int64)
        assert (np.diff(keys[0] * 250 * 768 + keys[1] * 768 + keys[2]) > 0).all()


def test_the_description_survives_a_file() -> None:
    how = how_simulated(range(3, 9), -3)
    assert Provenance.from_json(how.to_json()) == how
    assert str(how) == "simulation on numba, seed -3, stream philox"
    assert (how.nature, how.precision, how.graph_sha256) == ("simulation", None, None)


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
    monkeypatch.setattr("artifacts.standins.__main__.simulated_events", see)
    for options in ((), ("--threads", "5")):
        CliRunner().invoke(standin, ["simulate", "--output", str(tmp_path / "a.npz"), *options])
    assert asked == [3, 5]
