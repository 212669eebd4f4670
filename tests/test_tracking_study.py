"""The examples of the tracking study: the steering file on the double of basf2, and the comparison of helices."""

from __future__ import annotations

import importlib
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest

from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.basf2.numbering import derive_seed, pack_event_number
from tests.basf2_store import reader

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.model.graph_file import GraphFile

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "examples"
STEERING: Final = EXAMPLES / "basf2_tracking_study.py"
COLUMNS: Final = "event,particle,d0,phi0,omega,z0,tan_lambda"


def run_study(
    double: ModuleType, monkeypatch: pytest.MonkeyPatch, graph: GraphFile, background: str
) -> dict[tuple[int, int, int], Digits]:
    """Run the steering file with a module in place of the output, which collects the background's digits."""
    found: dict[tuple[int, int, int], Digits] = {}

    def add_reader(path: object, filename: str) -> None:
        assert filename == "tracks.root"
        path.add_module(reader(double, found.__setitem__))  # type: ignore[attr-defined]  # of the double

    monkeypatch.setattr(importlib.import_module("mdst"), "add_mdst_output", add_reader)
    monkeypatch.setenv("PXDBG_CHECKPOINT", str(graph.path))
    monkeypatch.setenv("PXDBG_OVERLAY", "overlay.root")
    monkeypatch.setenv("PXDBG_BACKGROUND", background)
    monkeypatch.setenv("PXDBG_OUTPUT", "tracks.root")
    runpy.run_path(str(STEERING))
    return found


@pytest.mark.slow
def test_generated_background_is_that_of_seed_and_event(
    double: ModuleType, monkeypatch: pytest.MonkeyPatch, resnet_graph: GraphFile
) -> None:
    found = run_study(double, monkeypatch, resnet_graph, "generated")
    assert len(found) == 10
    generator = Generator(resnet_graph.path, seed=derive_seed("pxdbg tracking study"))
    for numbers, digits in list(found.items())[::4]:
        expected = generator.generate(pack_event_number(*numbers))
        assert len(digits) == len(expected)
        np.testing.assert_array_equal(digits.charge, expected.charge)


def test_simulated_background_stays_and_none_is_removed(
    double: ModuleType, monkeypatch: pytest.MonkeyPatch, resnet_graph: GraphFile
) -> None:
    simulated = run_study(double, monkeypatch, resnet_graph, "simulated")
    assert [len(digits) for digits in simulated.values()] == [2] * 10  # those of the double's BGOverlayInput
    none = run_study(double, monkeypatch, resnet_graph, "none")
    assert [len(digits) for digits in none.values()] == [0] * 10


def test_another_background_is_refused(
    double: ModuleType, monkeypatch: pytest.MonkeyPatch, resnet_graph: GraphFile
) -> None:
    with pytest.raises(RuntimeError, match="PXDBG_BACKGROUND must be generated, simulated or none, but is file"):
        run_study(double, monkeypatch, resnet_graph, "file")


def write_tracks(path: Path, keys: list[tuple[int, int]], parameters: np.ndarray) -> Path:
    rows = [",".join(map(str, [*key, *row])) for key, row in zip(keys, parameters.tolist(), strict=True)]
    path.write_text("\n".join([COLUMNS, *rows]), encoding="utf-8")
    return path


def test_helices_are_compared_particle_by_particle(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    keys = [(event, particle) for event in range(100) for particle in range(10)]
    true = rng.uniform(-3.14, 3.14, (1000, 5))
    reference = write_tracks(tmp_path / "none.csv", keys, true)
    # Every tenth track is lost, the others have errors of 0.02, and phi0 is given between 0 and 2π.
    measured = true + rng.normal(0, 0.02, true.shape)
    measured[:, 1] %= 2 * np.pi
    kept = [row for row in rng.permutation(1000) if row % 10]
    other = write_tracks(tmp_path / "generated.csv", [keys[row] for row in kept], measured[kept])
    command = [sys.executable, str(EXAMPLES / "compare_helices.py"), reference.name, other.name]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    head, *lines = result.stdout.splitlines()
    assert head == "generated.csv: 900 of 1000 particles of none.csv have a track"
    assert [line.split()[0] for line in lines] == ["d0", "phi0", "omega", "z0", "tan_lambda"]
    for line in lines:
        _name, _median, median, _width, width, _sign, error = line.split()
        assert abs(float(median.rstrip(","))) < 0.003
        assert float(width) == pytest.approx(0.02, abs=0.002)
        assert 0.0002 < float(error) < 0.002


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,1,0,0,0,0,0", "several rows of one event and particle: keep one track of each particle"),
        ("1,2,0,nan,0,0,0", "a row with a field that is not a finite number"),
        ("1,,0,0,0,0,0", "a row with a field that is not a finite number"),
        ("1,2,0,0,inf,0,0", "a row with a field that is not a finite number"),
    ],
)
def test_rows_that_would_be_compared_wrongly_are_refused(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv"
    path.write_text(f"{COLUMNS}\n1,1,1,1,1,1,1\n{row}\n", encoding="utf-8")
    read_tracks = runpy.run_path(str(EXAMPLES / "compare_helices.py"))["read_tracks"]
    with pytest.raises(ValueError, match=rf"tracks\.csv has {message}"):
        read_tracks(str(path))


def test_a_table_without_a_column_and_no_table(tmp_path: Path) -> None:
    path = tmp_path / "tracks.csv"
    path.write_text("event,particle,d0,phi0,omega,z0\n1,1,0,0,0,0\n", encoding="utf-8")
    program = [sys.executable, str(EXAMPLES / "compare_helices.py")]
    result = subprocess.run([*program, str(path), str(path)], capture_output=True, text=True)
    assert result.returncode == 1
    assert "tracks.csv lacks the columns tan_lambda" in result.stderr
    result = subprocess.run(program, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Each file is a table in CSV" in result.stderr
