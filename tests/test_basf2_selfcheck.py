"""The check of a release: on the double, on a double that lacks something, and without basf2."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime import Generator
from pxdbg_runtime.basf2 import Specs, selfcheck

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.model.graph_file import GraphFile


def read_rows(output: str) -> dict[str, tuple[str, str]]:
    """Read result and remark of each row of the tables by its first column; no cell may be wrapped."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {what: (result, remark) for what, result, remark in rows}


@pytest.fixture
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


@pytest.mark.usefixtures("_wide")
@pytest.mark.slow
def test_all_is_right_on_the_double(double: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    selfcheck.main()
    rows = read_rows(capfd.readouterr().out)
    payload = "payload PXDBackgroundGenerator_resnet_onnx"
    remark = "The global tags, PXDBackgroundGenerator included, have none: give the module a checkpoint."
    assert rows.pop(payload) == ("not found", remark)
    assert {result for result, _ in rows.values()} == {"right"}
    assert len(rows) > 30
    assert "EStoreFlags" in rows["ROOT.Belle2.PyStoreArray.registerInDataStore"][1]
    simulation = "StatisticsSummary → BGOverlayInput → PXDBackgroundGenerator → Gearbox"
    assert rows["add_simulation with BGOverlayInput"][1] == simulation
    assert rows["compiled function that writes digits"][1] == "without the header pxd/dataobjects/PXDDigit.h"
    remark = rows["job of one event"][1]
    assert remark.endswith(" digits in the data store, written with PyStoreArray.fillArray")
    assert int(remark.partition(" ")[0]) > 50_000
    assert [level for level, _ in double.logged] == ["INFO", "INFO", "INFO"]


@pytest.fixture
def _small_graph(monkeypatch: pytest.MonkeyPatch, resnet_graph: GraphFile) -> None:
    """Check with a small graph; the first test runs the built-in one."""
    monkeypatch.setattr(selfcheck, "_SPECS", Specs("resnet", resnet_graph.path, seed=1))
    monkeypatch.setattr(selfcheck, "Generator", lambda _, seed: Generator(resnet_graph.path, seed=seed))


@pytest.mark.usefixtures("_wide", "_small_graph")
@pytest.mark.slow
def test_the_payload_is_looked_for_in_the_global_tag_of_the_module(
    double: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "PXDBackgroundGenerator_resnet_onnx"
    double.conditions.payloads["PXDBackgroundGenerator", name] = "/cvmfs/payload.root"
    selfcheck.main()
    assert read_rows(capfd.readouterr().out)[f"payload {name}"] == ("found", "/cvmfs/payload.root")


def find_wrong_rows(capfd: pytest.CaptureFixture[str]) -> dict[str, str]:
    with pytest.raises(SystemExit, match=r"^1$"):
        selfcheck.main()
    rows = read_rows(capfd.readouterr().out)
    return {what: remark for what, (result, remark) in rows.items() if result == "wrong"}


@pytest.mark.usefixtures("_wide")
def test_what_a_release_lacks_is_wrong(
    double: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    simulation = importlib.import_module("simulation")
    monkeypatch.delattr(double, "get_random_seed")
    monkeypatch.setattr(simulation, "add_simulation", lambda path, **_: path.add_module("FullSim"))
    monkeypatch.setattr(selfcheck, "compile_bulk_fill", lambda _: False)
    monkeypatch.setattr(double, "process", lambda _: double.B2FATAL("no conditions database"))
    assert find_wrong_rows(capfd) == {
        "basf2.get_random_seed": "module 'basf2' has no attribute 'get_random_seed'",
        "add_simulation with BGOverlayInput": "The simulation has no BGOverlayInput: its modules are FullSim.",
        "compiled function that writes digits": "ROOT's interpreter does not compile it.",
        "job of one event": "no conditions database",
        "payload PXDBackgroundGenerator_resnet_onnx": "The job ended before it looked for the payload.",
    }


@pytest.mark.usefixtures("_wide", "_small_graph")
def test_digits_that_do_not_arrive_are_wrong(
    double: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(double.ROOT.Belle2.PyStoreArray, "fillArray", lambda *_, **__: None)
    ((what, remark),) = find_wrong_rows(capfd).items()
    assert what == "job of one event"
    assert remark.startswith("The data store does not hold the ")


def test_without_basf2_one_sentence_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pxdbg_runtime.basf2.selfcheck"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "There is nothing to check without the Python module basf2: set up a release (b2setup).\n"
