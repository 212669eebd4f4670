"""Benchmarks: the ratios that are to be reached, on made-up measurements, and the gains of passes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import pytest
import torch

from benchmarks import fresh_work, passes, peers
from benchmarks.graphs import Workspace
from benchmarks.passes import gain_table
from benchmarks.peers import TARGETS, claims_of
from benchmarks.plan import Plan
from benchmarks.startup import claim_of
from benchmarks.timing import Measurement
from export.charge import find_charge_thresholds
from export.checkpoint import load_checkpoint
from export.families import load_family
from export.torch_graph import OPSET, OUTPUT_NAME, export_to_onnx
from pxdbg_runtime.model.card import Draw, GraphInput
from tests.checkpoints import FlatNet, flat_checkpoint, register_family
from tests.graphs import LATENT_CARD, written

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pxdbg_runtime.model.card import Precision
    from pxdbg_runtime.model.graph_file import GraphFile

OURS: Final = "ours, float32"
INT8: Final = "ours, int8"
FLOOR: Final = "float32 floor of the rewritten graph"
EXPECTED: Final = {
    "float32, against the plain export on ONNX Runtime": (1.45, 2.6),
    "float32, against the plain export on OpenVINO": (1.3, 2.3),
    "float32, against the original": (4.5, 4.5),
    "int8, against the plain export on ONNX Runtime": (3.8, 9.5),
    "int8, against the original": (12, 15),
    "float32, over the float32 floor of the rewritten graph": (1.6, 1.3),
}


@pytest.fixture
def flat_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Put a model that takes no time, and its graph, in the place of every model."""
    register_family(monkeypatch, "resnet", FlatNet)
    path = flat_checkpoint(tmp_path)
    card = dataclasses.replace(
        LATENT_CARD,
        latent_size=96,
        draws=(Draw(name="latent", shape=(40, 96)),),
        inputs=(GraphInput(name="latent", role="latent", draw="latent"),),
        output=OUTPUT_NAME,
        opset=OPSET,
        thresholds=tuple(find_charge_thresholds().tolist()),
    )
    graph = written(
        tmp_path / "flat.onnx", export_to_onnx(load_checkpoint(path, "resnet"), load_family("resnet")), card
    )

    def give(_self: Workspace, _family: str, _precision: Precision = "float32", *, rewrite: bool = True) -> GraphFile:
        del rewrite
        return graph

    monkeypatch.setattr(Workspace, "graph", give)
    workspace = Workspace(folder=tmp_path, checkpoints={"resnet": path}, log=lambda _: None)
    return Plan(families=("resnet",), rounds=2, quick=True, workspace=workspace, log=lambda _: None)


def rows(family: str, seconds: Mapping[str, tuple[float, ...]]) -> tuple[Measurement, ...]:
    names = dict.fromkeys(name for target in TARGETS for name in (target.numerator, target.denominator))
    return tuple(
        Measurement(
            labels=(family, name), unit="s", samples=seconds.get(name, ()), reason="" if name in seconds else "-"
        )
        for name in names
    )


def peer(part: str) -> str:
    """Find the name of the row of a peer."""
    (name,) = {target.numerator for target in TARGETS if part in target.numerator}
    return name


def verdicts(family: str, seconds: Mapping[str, tuple[float, ...]]) -> list[str]:
    return [claim.verdict for claim in claims_of(family, rows(family, seconds))]


def test_the_targets_are_those_of_the_table() -> None:
    assert {target.what: (target.resnet, target.convnet) for target in TARGETS} == EXPECTED
    assert [target.bound for target in TARGETS] == ["at least"] * 5 + ["at most"]
    assert TARGETS[0].value("resnet") == 1.45
    assert TARGETS[0].value("convnet") == 2.6


def test_all_ratios_hold_for_numbers_that_are_good_enough() -> None:
    seconds = {
        OURS: (2.0, 2.2, 2.1),
        INT8: (0.5, 0.5, 0.6),
        FLOOR: (1.9, 2.0, 2.0),
        peer("plain export, ONNX"): (6.0, 6.0, 6.0),
        peer("OpenVINO"): (5.0, 5.1, 5.2),
        peer("original"): (15.0, 15.0, 15.0),
    }
    assert verdicts("convnet", seconds) == ["holds"] * 6


@pytest.mark.parametrize(
    ("name", "seconds", "changed"),
    [
        (OURS, 3.5, [1, 2, 5]),
        (INT8, 2.0, [3, 4]),
        (FLOOR, 1.0, [5]),
        ("plain export, ONNX", 1.0, [0, 3]),
        ("OpenVINO", 1.0, [1]),
        ("original", 1.0, [2, 4]),
    ],
)
def test_a_row_that_is_off_breaks_the_ratios_it_takes_part_in(name: str, seconds: float, changed: list[int]) -> None:
    good = {
        OURS: (2.0,),
        INT8: (0.5,),
        FLOOR: (1.9,),
        peer("plain export, ONNX"): (6.0,),
        peer("OpenVINO"): (4.5,),
        peer("original"): (15.0,),
    }
    assert verdicts("resnet", good) == ["holds"] * 6
    full_name = name if name in good else peer(name)
    found = verdicts("resnet", {**good, full_name: (seconds,)})
    assert [number for number, verdict in enumerate(found) if verdict == "does not hold"] == changed


def test_ratios_of_what_is_not_installed_are_not_measured() -> None:
    seconds = {OURS: (2.0,), FLOOR: (1.9,), peer("plain export, ONNX"): (6.0,)}
    expected = ["holds", "not measured", "not measured", "not measured", "not measured", "holds"]
    assert verdicts("resnet", seconds) == expected


def test_the_time_beside_an_event_is_compared_with_two_seconds() -> None:
    def claim(whole: float, warm: float) -> str:
        measurements = (
            Measurement(labels=("resnet", "int8", "pxdbg generate --events 1"), unit="s", samples=(whole,)),
            Measurement(labels=("resnet", "int8", "a warm event"), unit="s", samples=(warm,)),
        )
        return claim_of("resnet", "int8", measurements).verdict

    assert (claim(3.0, 1.5), claim(3.0, 0.5)) == ("holds", "does not hold")


def test_the_table_of_passes_compares_each_with_the_one_before() -> None:
    def measured(name: str, *samples: float, unit: str = "s") -> Measurement:
        return Measurement(labels=("resnet", name), unit=unit, samples=samples, reason="" if samples else "refused")

    seconds = (measured("plain", 4.0, 5.0, 6.0), measured("fold"), measured("phases", 2.0, 2.0, 4.0))
    counted = tuple(
        measured(name, n, unit="multiply-accumulates")
        for name, n in (("plain", 6.4e9), ("fold", 6.4e9), ("phases", 4.1e9))
    )
    assert gain_table("resnet", seconds, counted).rows == (
        ("plain", "6.40", "5.00", "4.00 to 6.00", ""),
        ("fold", "6.40", "not measured", "", ""),
        ("phases", "4.10", "2.00", "2.00 to 4.00", "2.50"),
    )


@pytest.mark.slow
def test_every_way_to_an_event_is_measured(flat_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # compiling takes half a minute
    n_threads = torch.get_num_threads()
    report = peers.measure(flat_plan)
    assert torch.get_num_threads() == n_threads
    assert len(report.measurements) == 9
    for measurement in report.measurements:
        is_absent = measurement.reason.startswith("not installed") and "OpenVINO" in measurement.labels[1]
        assert is_absent or len(measurement.samples) == 2, measurement.reason
        assert all(0 < seconds < 60 for seconds in measurement.samples)
    assert [(claim.model, claim.what) for claim in report.claims] == [("resnet", what) for what in EXPECTED]
    assert report.remarks[0] == "resnet: weights of flat-0.pt"


def test_the_graph_after_each_pass_is_measured(flat_plan: Plan) -> None:
    report = passes.measure(flat_plan)
    seconds = [each for each in report.measurements if each.unit == "s"]
    products = [each for each in report.measurements if each.unit == "multiply-accumulates"]
    assert [each.labels for each in seconds] == [each.labels for each in products]
    assert seconds[0].labels == ("resnet", "plain")
    assert all(len(each.samples) == 2 for each in seconds), [each.reason for each in seconds]
    assert {each.samples for each in products} == {(96.0 * 768,)}
    (table,) = report.tables
    assert len(table.rows) == len(seconds) > 1


def test_the_original_makes_an_event(flat_plan: Plan) -> None:
    assert fresh_work.original(str(flat_plan.workspace.checkpoint("resnet")), "resnet") == ()
