"""Benchmarks: ratios and their targets, on invented measurements, and the gains of passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import torch
from msgspec import structs

from benchmarks import fresh_work, passes, peers
from benchmarks.benchmark import Plan, run_benchmark
from benchmarks.graphs import Workspace
from benchmarks.memory import compare_peaks
from benchmarks.passes import build_gain_table
from benchmarks.peers import RATIOS, compare_ratios, read_speed_targets
from benchmarks.pytorch_peers import generate_original_event
from benchmarks.startup import build_claim
from benchmarks.timing import Measurement
from export.charge import find_charge_thresholds
from export.checkpoint import load_checkpoint
from export.families import FAMILIES, load_family
from export.torch_graph import OPSET, OUTPUT_NAME, export_to_onnx
from pxdbg_runtime.model.card import Draw, GraphInput
from tests.checkpoints import FlatNet, flat_checkpoint, random_model, register_family
from tests.compiled_graphs import compile_graph
from tests.graphs import LATENT_CARD, write_graph
from tests.small_graphs import SmallGraph
from tests.tiny_ieagan import TINY, TINY_VARIANTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile

EXPECTED: Final = {
    "float32, against the plain export on ONNX Runtime": (1.45, 2.6),
    "float32, against the plain export on OpenVINO": (1.3, 2.3),
    "float32, against the original": (4.5, 4.5),
    "int8, against the plain export on ONNX Runtime": (3.8, 9.5),
    "int8, against the original": (12, 15),
    "int8, against OpenVINO's own int8 of the plain export": (1.2, 1.2),
    "int8, against OpenVINO's own int8 of the rewritten graph": (1.2, 1.2),
    "float32, over the float32 floor of the rewritten graph": (1.3, 1.15),
    "int8, over a quarter of the float32 floor": (1.2, 1.05),
}
EXPECTED_OF_IEAGAN: Final = {
    "float32, against the plain export on ONNX Runtime, batches of 1": 1.4,
    "float32, against the original": 4,
    "int8, against the plain export on ONNX Runtime, batches of 1": 4.5,
    "int8, against the original": 13,
    "int8, against OpenVINO's own int8 of the plain export": 1.2,
    "int8, against OpenVINO's own int8 of the rewritten graph": 1.2,
    "float32, over the float32 floor of the rewritten graph": 1.7,
    "int8, over a quarter of the float32 floor": 1.6,
}


@pytest.fixture(scope="module")
def flat_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GraphFile]:
    """Write a checkpoint of a model that takes no time, and its graph."""
    folder = tmp_path_factory.mktemp("flat")
    path = flat_checkpoint(folder)
    card = structs.replace(
        LATENT_CARD,
        latent_size=96,
        draws=(Draw(name="latent", shape=(40, 96)),),
        inputs=(GraphInput(name="latent", role="latent", draw="latent"),),
        output=OUTPUT_NAME,
        opset=OPSET,
        thresholds=tuple(find_charge_thresholds().tolist()),
    )
    with pytest.MonkeyPatch.context() as patch:
        register_family(patch, "resnet", FlatNet)
        model = export_to_onnx(load_checkpoint(path, "resnet"), load_family("resnet"))
    return path, write_graph(folder / "flat.onnx", model, card)


@pytest.fixture
def flat_plan(flat_export: tuple[Path, GraphFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Replace every model and graph by those of a family that takes no time."""
    register_family(monkeypatch, "resnet", FlatNet)
    checkpoint, graph = flat_export
    monkeypatch.setattr(Workspace, "find_graph", lambda *_arguments, **_options: graph)
    workspace = Workspace(folder=tmp_path, checkpoints={"resnet": checkpoint}, log=lambda _: None)
    return Plan(families=("resnet",), rounds=2, quick=True, workspace=workspace, log=lambda _: None)


GOOD: Final = {
    "ours, float32": 2.0,
    "ours, int8": 0.5,
    "float32 floor of the rewritten graph": 1.9,
    "int8 floor: a quarter of the float32 floor without shared terms": 0.48,
    "plain export, OpenVINO's own int8, batches of 4": 1.5,
    "rewritten float32 graph, OpenVINO's own int8, batches of 4": 1.0,
    "plain export, ONNX Runtime, batches of 4": 6.0,
    "plain export, ONNX Runtime, batches of 1": 6.0,
    "plain export, OpenVINO, batches of 4": 4.6,
    "the original: PyTorch eager, 40 images at once": 15.0,
}
"""Seconds with which all targets are reached."""


def find_verdicts(family: str, seconds: Mapping[str, float]) -> list[str]:
    measurements = [
        Measurement(labels=(family, name), unit="s", samples=(seconds[name],) if name in seconds else (), reason="-")
        for name in GOOD
    ]
    return [claim.verdict for claim in compare_ratios(family, measurements)]


def test_the_targets_are_those_of_the_table() -> None:
    targets = read_speed_targets()
    assert targets.keys() == set(FAMILIES)
    for number, family in enumerate(("resnet", "convnet")):
        assert targets[family] == {what: of_both[number] for what, of_both in EXPECTED.items()}
    assert targets["ieagan"] == EXPECTED_OF_IEAGAN
    bounds = {what: bound for what, *_, bound in RATIOS}
    assert bounds.keys() == EXPECTED.keys() | EXPECTED_OF_IEAGAN.keys()
    assert [what for what, bound in bounds.items() if bound == "at most"] == list(EXPECTED)[-2:]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_targets_are_reached_by_good_numbers(family: str) -> None:
    assert find_verdicts(family, GOOD) == ["holds"] * (8 if family == "ieagan" else 9)


def test_the_floor_of_int8_counts_products_without_shared_terms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = SmallGraph(whole=False)
    graph.conv(graph.upsample(graph.input(11, 2, 3)), 11, 11, (5, 5))
    plain = graph.model()
    ours = write_graph(tmp_path / "ours.onnx", compile_graph(plain, "cpu"), LATENT_CARD)
    monkeypatch.setattr(peers, "prepare_rate", lambda _: lambda: (1.0,))
    seconds = peers._prepare_floors(write_graph(tmp_path / "plain.onnx", plain, LATENT_CARD), ours)()
    # Of 2 x 3 pixels; the differences of rows, columns and both have 82 elements times taps in each of 11 channels.
    expected = 6 * 25 * 11 * 11 + 82 * 11, 6 * 36 * 11 * 11 / 4
    assert seconds == pytest.approx([40e-9 * each for each in expected])


def test_a_family_without_targets_has_no_claims() -> None:
    assert compare_ratios("another", ()) == ()


@pytest.mark.parametrize(
    ("name", "seconds", "missed"),
    [
        ("ours, float32", 3.6, [1, 2, 7]),
        ("ours, int8", 2.0, [3, 4, 5, 6, 8]),
        ("float32 floor of the rewritten graph", 1.0, [7]),
        ("int8 floor: a quarter of the float32 floor without shared terms", 0.25, [8]),
        ("plain export, OpenVINO's own int8, batches of 4", 0.5, [5]),
        ("rewritten float32 graph, OpenVINO's own int8, batches of 4", 0.5, [6]),
        ("plain export, ONNX Runtime, batches of 4", 1.0, [0, 3]),
        ("plain export, OpenVINO, batches of 4", 1.0, [1]),
        ("the original: PyTorch eager, 40 images at once", 1.0, [2, 4]),
    ],
)
def test_each_measurement_affects_its_ratios(name: str, seconds: float, missed: list[int]) -> None:
    found = find_verdicts("resnet", {**GOOD, name: seconds})
    assert [number for number, verdict in enumerate(found) if verdict == "does not hold"] == missed
    absent = find_verdicts("resnet", {other: value for other, value in GOOD.items() if other != name})
    assert {number for number, verdict in enumerate(absent) if verdict == "not measured"} >= set(missed)


@pytest.mark.parametrize(("name", "missed"), [("batches of 1", [6, 7]), ("batches of 4", [])])
def test_the_targets_of_ieagan_are_against_batches_of_1(name: str, missed: list[int]) -> None:
    found = find_verdicts("ieagan", {**GOOD, f"plain export, ONNX Runtime, {name}": 1.0})
    assert [number for number, verdict in enumerate(found) if verdict == "does not hold"] == missed


def test_peak_memory_is_compared_with_its_target() -> None:
    def find_peaks(float32_mb: float, int8_mb: float) -> list[tuple[str, str]]:
        peaks = {"float32": float32_mb, "int8": int8_mb}
        measurements = [
            Measurement(labels=("ieagan", f"ours, {precision}"), unit="MB", samples=(peak,))
            for precision, peak in peaks.items()
        ]
        return [(claim.what, claim.verdict) for claim in compare_peaks("ieagan", measurements)]

    names = ("float32, peak memory, MB", "int8, peak memory, MB")
    assert find_peaks(349, 229) == [(name, "holds") for name in names]
    assert find_peaks(351, 231) == [(name, "does not hold") for name in names]
    assert compare_peaks("toy", ()) == ()


def test_the_time_beside_an_event_is_compared_with_its_target() -> None:
    def claim(whole: float, warm: float) -> str:
        measurements = (
            Measurement(labels=("resnet", "int8", "pxdbg generate --events 1"), unit="s", samples=(whole,)),
            Measurement(labels=("resnet", "int8", "a warm event"), unit="s", samples=(warm,)),
        )
        return build_claim("resnet", "int8", measurements).verdict

    assert (claim(3.0, 2.3), claim(3.0, 2.1)) == ("holds", "does not hold")


def test_the_table_of_passes_compares_each_with_the_one_before() -> None:
    def build_measurement(name: str, *samples: float, unit: str = "s") -> Measurement:
        return Measurement(labels=("resnet", name), unit=unit, samples=samples, reason="" if samples else "refused")

    seconds = (
        build_measurement("plain", 4.0, 5.0, 6.0),
        build_measurement("fold"),
        build_measurement("phases", 2.0, 2.0, 4.0),
    )
    counted = tuple(
        build_measurement(name, n, unit="multiply-accumulates")
        for name, n in (("plain", 6.4e9), ("fold", 6.4e9), ("phases", 4.1e9))
    )
    assert build_gain_table("resnet", (*seconds, *counted)).rows == (
        ("plain", "6.40", "5.00", "4.00 to 6.00", ""),
        ("fold", "6.40", "not measured", "", ""),
        ("phases", "4.10", "2.00", "2.00 to 4.00", "2.50"),
    )


@pytest.mark.slow
def test_every_way_to_an_event_is_measured(flat_plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)  # compiling takes half a minute
    n_threads = torch.get_num_threads()
    report = run_benchmark(peers.BENCHMARK, flat_plan)
    assert torch.get_num_threads() == n_threads
    assert len(report.measurements) == 13
    for measurement in report.measurements:
        is_absent = measurement.reason.startswith("not installed") and "OpenVINO" in measurement.labels[1]
        assert is_absent or len(measurement.samples) == 2, measurement.reason
        assert all(0 < seconds < 60 for seconds in measurement.samples)
    assert [(claim.model, claim.what) for claim in report.claims] == [("resnet", what) for what in EXPECTED]
    assert report.remarks[0] == "resnet: weights of flat-0.pt"


@pytest.mark.slow
def test_the_graph_after_each_pass_is_measured(flat_plan: Plan) -> None:
    report = run_benchmark(passes.BENCHMARK, flat_plan)
    seconds = [each for each in report.measurements if each.unit == "s"]
    products = [each for each in report.measurements if each.unit == "multiply-accumulates"]
    assert [each.labels for each in seconds] == [each.labels for each in products]
    assert seconds[0].labels == ("resnet", "plain")
    assert all(len(each.samples) == 2 for each in seconds), [each.reason for each in seconds]
    assert {each.samples for each in products} == {(96.0 * 768,) * 2}
    (table,) = report.tables
    assert len(table.rows) == len(seconds) > 1


@pytest.mark.parametrize("variant", [0, 1])
def test_the_original_has_the_inputs_and_the_cut_of_a_variant(variant: int, monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "tiny", TINY)
    model = random_model(TINY_VARIANTS[variant].module_class)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # with other latents all charges may be larger
        sensor, _, _, charge = generate_original_event(model, "tiny", 2)
    assert set(sensor) == {0, 1}
    assert charge.min() == 6


def test_the_original_makes_an_event(flat_plan: Plan) -> None:
    assert fresh_work.generate_original_event(str(flat_plan.workspace.find_checkpoint("resnet")), "resnet") == ()
