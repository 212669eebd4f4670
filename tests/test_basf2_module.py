"""The basf2 module on paths of the double: what a real ROOT holds after each event."""

from __future__ import annotations

import dataclasses
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch
from msgspec import structs

from export.families import load_family
from export.pipeline import ExportOptions, export_checkpoint
from pxdbg_runtime import Digits, Generator
from pxdbg_runtime.basf2 import (
    PXDBackgroundGenerator,
    Specs,
    add_pxd_background_generator,
    inject_simulation,
)
from pxdbg_runtime.basf2.numbering import derive_seed, pack_event_number
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError, ModelNotFoundError, ModuleStateError
from tests.basf2_store import PARALLEL, build_path, find_messages, process_events, reader
from tests.checkpoints import FlatNet, export_first, flat_checkpoint, register_family
from tests.conftest import BASF2_DOUBLE
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, event_wide_model, latent_model, write_graph
from tests.test_exactness import Agreement, charges_of_digits, compute_original_charges, draw_events, keys_of_digits

if TYPE_CHECKING:
    from types import ModuleType

    from export.families.generator_module import GeneratorModule
    from pxdbg_runtime.inference.latents import RandomStreamName
    from pxdbg_runtime.model.graph_file import GraphFile

CHECKOUT: Final = Path(__file__).resolve().parent.parent
SEED: Final = -5
RARE: Final = -3.5
"""Bias of the flat generator at which its images are nearly empty."""


class FlatResNet(FlatNet):
    """The smallest generator, under the name of a family that the module knows."""


def compare_with_pytorch(basf2: ModuleType, model: GeneratorModule, graph: GraphFile, n_events: int) -> None:
    specs = Specs(model="resnet", checkpoint=graph.path, seed=SEED, random_stream="torch", precision="float32")
    found = process_events(basf2, specs, {(0, 0): n_events})
    family, agreement, largest = load_family("resnet"), Agreement(), 0
    for digits, draws in zip(found.values(), draw_events(family, SEED, n_events), strict=True):
        expected = compute_original_charges(family, model, draws, range(40))
        assert np.all(np.diff(keys_of_digits(digits)) > 0), "the digits must be ordered by sensor, u, v"
        charges = charges_of_digits(digits)
        agreement.add(charges, expected)
        largest = max(largest, int(np.abs(charges.astype(np.int16) - expected).max()))
    assert agreement.n_hits > n_events * 10_000, "too few hits for the comparison to say anything"
    assert agreement.share >= 0.9999
    assert largest <= 1


@pytest.mark.slow
def test_events_hold_the_digits_of_pytorch(double: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "resnet", FlatResNet)
    checkpoint = flat_checkpoint(tmp_path)
    weights = torch.load(checkpoint)
    weights["fc.bias"] += RARE
    torch.save(weights, checkpoint)
    model = FlatResNet()
    model.load_state_dict(weights)
    graph = export_checkpoint(checkpoint, "resnet", tmp_path / "graphs", ExportOptions(name="flat"))
    compare_with_pytorch(double, model.eval(), graph, 6)


@pytest.mark.exhaustive
def test_twenty_events_of_a_resnet_hold_the_digits_of_pytorch(double: ModuleType) -> None:
    export = export_first("resnet")
    compare_with_pytorch(double, export.model, export.graph, 20)


def test_an_event_holds_its_digits_alone(double: ModuleType, resnet_graph: GraphFile) -> None:
    found = process_events(double, Specs(model="resnet", checkpoint=resnet_graph.path, seed=3), {(0, 0): 2, (7, 42): 1})
    generator = Generator(resnet_graph.path, seed=3)
    assert set(found) == {(0, 0, 1), (0, 0, 2), (7, 42, 1)}
    for numbers, digits in found.items():
        expected = generator.generate(pack_event_number(*numbers))
        assert len(digits) > 10_000
        assert np.array_equal(charges_of_digits(digits), charges_of_digits(expected))
    array = double.ROOT.TClonesArray(double.ROOT.Belle2.PXDDigit.Class())
    assert array.GetEntriesFast() == 0


@pytest.mark.parametrize("stream", ["philox", "torch"])
def test_a_conditional_generator_fills_the_event_too(
    double: ModuleType, tmp_path: Path, stream: RandomStreamName
) -> None:
    card = structs.replace(EVENT_WIDE_CARD, family="ieagan")
    payload = write_graph(tmp_path / "PXDBackgroundGenerator_ieagan_onnx_r1.root", event_wide_model(), card)
    double.conditions.payloads["PXDBackgroundGenerator", "PXDBackgroundGenerator_ieagan_onnx"] = str(payload.path)
    found = process_events(double, Specs(model="ieagan", seed=3, random_stream=stream), {(0, 1): 3})
    generator = Generator(payload.path, seed=3, random_stream=stream)
    for number, (numbers, digits) in enumerate(found.items()):
        event = number if stream == "torch" else pack_event_number(*numbers)
        assert np.array_equal(charges_of_digits(digits), charges_of_digits(generator.generate(event)))
        assert len(digits) > 10_000


def test_the_same_event_is_the_same_in_any_job(double: ModuleType, resnet_graph: GraphFile) -> None:
    specs = Specs(model="resnet", checkpoint=resnet_graph.path, seed=3)
    whole = process_events(double, specs, {(0, 1): 1, (0, 2): 2})
    part = process_events(double, specs, {(0, 2): 2})
    assert {numbers: whole[numbers] for numbers in part} == part
    assert whole[0, 1, 1] != whole[0, 2, 1]


def test_a_second_job_in_a_process_begins_anew(double: ModuleType, resnet_graph: GraphFile) -> None:
    specs = Specs(model="resnet", checkpoint=resnet_graph.path, seed=3, random_stream="torch")
    path = build_path(double, specs, {(0, 0): 2})
    found: list[Digits] = []
    path.add_module(reader(double, lambda _, digits: found.append(digits)))  # type: ignore[attr-defined]
    double.process(path)
    double.process(path)
    assert found[:2] == found[2:]
    assert found[0] == process_one_event(resnet_graph, 3, 0)


def process_one_event(graph: GraphFile, seed: int, event: int) -> Digits:
    digits = Generator(graph.path, seed=seed, random_stream="torch").generate(event)
    return dataclasses.replace(digits, event=np.zeros(len(digits), dtype=np.int64))


@pytest.fixture(scope="module")
def parallel_jobs(tmp_path_factory: pytest.TempPathFactory, resnet_graph: GraphFile) -> Path:
    """Run jobs of four events with two parallel processes each, one after the other in a process without threads."""
    folder = tmp_path_factory.mktemp("parallel")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(BASF2_DOUBLE), str(CHECKOUT)))}
    command = [sys.executable, "-c", PARALLEL, str(folder), str(resnet_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder


def read_job(folder: Path) -> tuple[list[bytes], dict[str, list[str]]]:
    """Read the digits of the four events of a job; and the modules of its stages and its warnings."""
    digits = [np.load(folder / f"{event}.npy").tobytes() for event in range(1, 5)]
    return digits, json.loads((folder / "job.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["simulation", "path"])
def test_events_are_the_same_in_parallel_processes(
    double: ModuleType, parallel_jobs: Path, resnet_graph: GraphFile, kind: str
) -> None:
    parallel, job = read_job(parallel_jobs / f"{kind}-philox")
    one = process_events(double, Specs(model="resnet", checkpoint=resnet_graph.path, seed=7), {(1003, 5): 4})
    assert parallel == [digits.to_structured().tobytes() for digits in one.values()]
    assert len(set(parallel)) == 4
    assert job["warnings"] == []
    # add_simulation leaves everything from BGOverlayInput on to the output process.
    is_simulation = kind == "simulation"
    assert ("BGOverlayInput" in job["after"], "BGOverlayInput" in job["before"]) == (is_simulation, not is_simulation)
    generates = "PXDBackgroundGenerator"
    assert (generates in job["after"], generates in job["workers"]) == (is_simulation, not is_simulation)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["simulation", "path"])
def test_the_torch_stream_is_that_of_one_process_and_of_the_order_of_arrival(
    double: ModuleType, parallel_jobs: Path, resnet_graph: GraphFile, kind: str
) -> None:
    parallel, job = read_job(parallel_jobs / f"{kind}-torch")
    specs = Specs(model="resnet", checkpoint=resnet_graph.path, seed=7, random_stream="torch")
    one = [digits.to_structured().tobytes() for digits in process_events(double, specs, {(1003, 5): 4}).values()]
    # Events 1 and 3 arrive from one worker of the double, then 2 and 4 from the other.
    arrival = [0, 2, 1, 3] if kind == "simulation" else range(4)
    assert [parallel[event] for event in arrival] == one
    assert "PXDBackgroundGenerator" not in job["workers"]
    assert ("PXDBackgroundGenerator" in job["after"]) == (kind == "simulation")
    (warning,) = job["warnings"]
    assert warning == (
        "PXDBackgroundGenerator: with random_stream='torch' the background of an event depends on the order in which "
        "events arrive, and with -p that order can differ from run to run: use random_stream='philox', or no -p."
    )


def test_the_extension_is_that_of_the_overlay(double: ModuleType, resnet_graph: GraphFile) -> None:
    path = double.create_path()
    path.add_module("EventInfoSetter")
    path.add_module("BGOverlayInput", inputFileNames=["overlay.root"], extensionName="_mine")
    add_pxd_background_generator(path, Specs(model="resnet", checkpoint=resnet_graph.path, seed=1))
    found: list[Digits] = []
    path.add_module(reader(double, lambda _, digits: found.append(digits), extension="_mine"))
    double.process(path)
    assert len(found[0]) > 10_000


def test_without_overlay_there_is_an_error_that_says_what_is_missing(
    double: ModuleType, resnet_graph: GraphFile
) -> None:
    path = double.create_path()
    path.add_module("EventInfoSetter")
    add_pxd_background_generator(path, Specs(model="resnet", checkpoint=resnet_graph.path, seed=1))
    path.add_module("BGOverlayInput", inputFileNames=["overlay.root"])
    with pytest.raises(RuntimeError, match="the path must contain BGOverlayInput before PXDBackgroundGenerator"):
        double.process(path)
    assert [level for level, _ in double.logged] == ["ERROR", "FATAL"]


def test_the_seed_is_basf2s_and_logged(double: ModuleType, resnet_graph: GraphFile) -> None:
    double.set_random_seed("something important")
    found = process_events(double, Specs(model="resnet", checkpoint=resnet_graph.path), {(0, 0): 1})
    seed = derive_seed("something important")
    assert seed == 844476566302984293
    messages = find_messages(double, "INFO")
    assert messages[0] == f"the seed is {seed}, the random stream philox."
    expected = Generator(resnet_graph.path, seed=seed).generate(1)
    assert np.array_equal(charges_of_digits(found[0, 0, 1]), charges_of_digits(expected))
    assert f"CPUExecutionProvider, graph with SHA-256 {resnet_graph.sha256}" in messages[-1]


@pytest.mark.parametrize("tag", ["PXDBackgroundGenerator", "mine"])
def test_the_payload_of_the_global_tag_is_used(
    double: ModuleType, resnet_graph: GraphFile, tmp_path: Path, tag: str
) -> None:
    payload = tmp_path / "PXDBackgroundGenerator_resnet_onnx_r1.root"
    payload.write_bytes(resnet_graph.path.read_bytes())
    double.conditions.payloads[tag, "PXDBackgroundGenerator_resnet_onnx"] = str(payload)
    specs = Specs(model="resnet", seed=3) if tag == "PXDBackgroundGenerator" else Specs("resnet", None, 3, 1, 1, tag)
    found = process_events(double, specs, {(0, 0): 1})
    assert double.conditions.globaltags == [tag]
    assert found == process_events(double, Specs("resnet", resnet_graph.path, 3), {(0, 0): 1})


def test_another_payload_in_another_run_is_used_from_there_on(
    double: ModuleType, resnet_graph: GraphFile, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.root", tmp_path / "second.root"
    first.write_bytes(resnet_graph.path.read_bytes())
    write_graph(second, latent_model(), structs.replace(LATENT_CARD, family="resnet", min_charge=4))
    name = "PXDBackgroundGenerator_resnet_onnx"
    double.conditions.payloads["PXDBackgroundGenerator", name] = str(first)
    found: list[Digits] = []

    def take(_numbers: tuple[int, int, int], digits: Digits) -> None:
        found.append(digits)
        double.ROOT.Belle2.DBAccessorBase.files()[name] = str(second)

    path = build_path(double, Specs(model="resnet", seed=3), {(0, 1): 1, (0, 2): 1})
    path.add_module(reader(double, take))  # type: ignore[attr-defined]
    double.process(path)
    assert found[0].charge.min() < 4
    assert found[1].charge.min() >= 4


MISSING: Final = (
    r"No checkpoint was given, and no global tag has the payload PXDBackgroundGenerator_{0}_onnx for this run: .* "
    r"`python -m export --from-conditions {1} --family {0} --output graphs` once, and pass the path of the graph that "
    r"it writes as checkpoint=\."
)


def test_of_a_missing_payload_the_remedy_is_given_before_any_event(double: ModuleType) -> None:
    events: list[object] = []
    path = build_path(double, Specs("resnet", globaltag="my tag"), {(0, 0): 1})
    path.add_module(reader(double, lambda *event: events.append(event)))  # type: ignore[attr-defined]
    standin = r' checkpoint="builtin:{}" runs without that, but is a stand-in, not the collaboration\'s weights\.$'
    with pytest.raises(
        ModelNotFoundError, match=MISSING.format("resnet", "'my tag'") + standin.format("resnet")
    ) as caught:
        double.process(path)
    assert caught.value.model == "PXDBackgroundGenerator_resnet_onnx"
    with pytest.raises(
        ModelNotFoundError, match=MISSING.format("ieagan", "PXDBackgroundGenerator") + standin.format("ieagan")
    ):
        process_events(double, Specs("ieagan"), {(0, 0): 1})
    assert events == []
    assert find_messages(double, "FATAL") == []


def test_a_payload_that_a_later_run_lacks_ends_the_job_there(
    double: ModuleType, resnet_graph: GraphFile, tmp_path: Path
) -> None:
    payload = tmp_path / "payload.root"
    payload.write_bytes(resnet_graph.path.read_bytes())
    name = "PXDBackgroundGenerator_resnet_onnx"
    double.conditions.payloads["PXDBackgroundGenerator", name] = str(payload)
    path = build_path(double, Specs(model="resnet", seed=3), {(0, 1): 1, (0, 2): 1})
    found: list[Digits] = []

    def take(_numbers: tuple[int, int, int], digits: Digits) -> None:
        found.append(digits)
        double.ROOT.Belle2.DBAccessorBase.files().clear()

    path.add_module(reader(double, take))  # type: ignore[attr-defined]
    with pytest.raises(ModelNotFoundError, match=MISSING.format("resnet", "PXDBackgroundGenerator")):
        double.process(path)
    assert len(found) == 1


def test_a_graph_of_another_family_is_refused_before_any_event(double: ModuleType, resnet_graph: GraphFile) -> None:
    specs = Specs(checkpoint=resnet_graph.path)
    with pytest.raises(
        ArgumentValueError, match="model is 'convnet', but the graph tiny is of the family resnet: give model='resnet'"
    ):
        process_events(double, specs, {(0, 0): 1})


def test_a_damaged_graph_is_refused_before_any_event(
    double: ModuleType, resnet_graph: GraphFile, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    content = bytearray(resnet_graph.path.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(GraphFileError, match=r"damaged\.onnx is damaged"):
        process_events(double, Specs(model="resnet", checkpoint=damaged), {(0, 0): 1})


def test_without_initialize_there_is_no_event(double: ModuleType, resnet_graph: GraphFile) -> None:
    module = PXDBackgroundGenerator(model="resnet", checkpoint=resnet_graph.path)
    with pytest.raises(ModuleStateError, match="was asked for an event without a successful initialize"):
        module.event()  # type: ignore[attr-defined]  # of the double's Module
    assert double.logged == []


@pytest.mark.parametrize("example", ["basf2_background", "basf2_specs"])
def test_the_examples_run_to_the_end(
    double: ModuleType, resnet_graph: GraphFile, monkeypatch: pytest.MonkeyPatch, example: str
) -> None:
    monkeypatch.setenv("PXDBG_CHECKPOINT", str(resnet_graph.path))
    monkeypatch.setenv("PXDBG_OVERLAY", "overlay.root")
    ran = runpy.run_path(str(CHECKOUT / "examples" / f"{example}.py"))
    names = [module.name() for module in ran["path"].modules()]
    assert names == [
        "EventInfoSetter",
        "EvtGenInput",
        "StatisticsSummary",
        "BGOverlayInput",
        "PXDBackgroundGenerator",
        "Gearbox",
        "Geometry",
        "FullSim",
        "PXDDigitizer",
        "BGOverlayExecutor",
        "PXDDigitSorter",
        "PXDClusterizer",
        "RootOutput",
    ]
    assert [level for level, _ in double.logged] == ["INFO", "INFO", "INFO"]
    assert f"graph with SHA-256 {resnet_graph.sha256}" in double.logged[2][1]


def test_the_form_of_releases_runs_without_a_checkpoint(
    double: ModuleType, resnet_graph: GraphFile, tmp_path: Path
) -> None:
    payload = tmp_path / "payload.root"
    payload.write_bytes(resnet_graph.path.read_bytes())
    double.conditions.payloads["PXDBackgroundGenerator", "PXDBackgroundGenerator_resnet_onnx"] = str(payload)
    path = double.create_path()
    path.add_module("EventInfoSetter")
    inject_simulation(PXDBackgroundGenerator("resnet", seed=3))(path, bkgfiles=["overlay.root"])
    found: list[Digits] = []
    path.add_module(reader(double, lambda _, digits: found.append(digits)))
    double.process(path)
    assert found == list(process_events(double, Specs("resnet", resnet_graph.path, 3), {(0, 0): 1}).values())
