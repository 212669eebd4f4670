"""Plans of campaigns: what they record and refuse, and which machines give the same digits."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pxdbg_runtime import Generator
from pxdbg_runtime.campaigns import open_campaign, write_plan
from pxdbg_runtime.campaigns.machine import Machine, explain_mismatch
from pxdbg_runtime.campaigns.plan import MAX_PARTS, CampaignPlan, split_events
from pxdbg_runtime.errors import ArgumentValueError, CampaignError, JsonFieldError
from tests.campaigns import MIN_CHARGE, plan_campaign
from tests.test_command_line import invoke, require_failure

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.card import Precision
    from pxdbg_runtime.model.graph_file import GraphFile

MACHINE = Machine(pxdbg_runtime="1.0", onnxruntime="1.21.0", architecture="x86_64", device="AMD EPYC, features 1")
PLAN = CampaignPlan(
    model="tiny",
    graph="graph.onnx",
    graph_sha256="a" * 64,
    precision="float32",
    provider="CPUExecutionProvider",
    provider_options={"device_id": "1"},
    batch_size=2,
    nintra=1,
    ninter=1,
    min_charge=7,
    sensors=("1.1.1", "2.12.2"),
    seed=-(2**63),
    random_stream="philox",
    format="overlay",
    experiment=1003,
    run=0,
    machine=MACHINE,
    partitions=split_events(range(10, 25), 10),
)
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


@given(first=st.integers(0, 2**62), events=st.integers(1, 5000), per_part=st.integers(1, 600))
def test_partitions_cover_all_events_once(first: int, events: int, per_part: int) -> None:
    partitions = split_events(range(first, first + events), per_part)
    assert list(itertools.chain.from_iterable(each.numbers for each in partitions)) == list(
        range(first, first + events)
    )
    assert {each.events for each in partitions[:-1]} <= {per_part}
    assert partitions[-1].events <= per_part


def test_too_many_partitions_are_refused_with_a_number_that_works() -> None:
    events = range(MAX_PARTS * 10 + 1)
    with pytest.raises(ArgumentValueError, match="take --events-per-part 11 or more"):
        split_events(events, 10)
    assert len(split_events(events, 11)) <= MAX_PARTS


def test_a_plan_is_read_as_it_was_written() -> None:
    assert CampaignPlan.from_json(PLAN.to_json()) == PLAN
    assert (PLAN.n_parts, PLAN.n_events, PLAN.last_event, PLAN.suffix) == (2, 15, 24, ".root")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"schema": 2}, "schema"),
        ({"format": "csv"}, "format must be one of parquet"),
        ({"graph": "../graph.onnx"}, "graph must be the name of a file beside the plan"),
        ({"sensors": ["2.12.2", "1.1.1"]}, "sensors must be null or names"),
        ({"sensors": ["9.9.9"]}, "sensors must be null or names"),
        ({"random_stream": "torch"}, "random_stream must be philox"),
        ({"experiment": None}, "experiment must be a number for the format overlay"),
        ({"experiment": 1003, "run": 4}, "run is not valid: Experiment 1003 is run-independent"),
        ({"batch_size": 0}, "batch_size"),
        ({"partitions": []}, "partitions"),
        (
            {"partitions": [{"first_event": 0, "events": 2}, {"first_event": 3, "events": 2}]},
            r"partitions\[1\]\.first_event must be 2",
        ),
        ({"partitions": [{"first_event": 2**63 - 1, "events": 2}]}, "partitions must end at event"),
        ({"anything": 1}, "anything is unknown"),
    ],
)
def test_an_invalid_plan_names_the_field(changes: dict[str, Any], match: str) -> None:
    text = json.dumps(json.loads(PLAN.to_json()) | changes)
    with pytest.raises(JsonFieldError, match=match):
        CampaignPlan.from_json(text)


def test_a_folder_without_a_valid_plan_is_no_campaign(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match=r"it has no plan\.json: make one with pxdbg campaign plan"):
        open_campaign(tmp_path)
    for content in (b"", b"\xff\xfe", b"[]", b"{" * 100_000):
        (tmp_path / "plan.json").write_bytes(content)
        with pytest.raises(CampaignError, match=r"plan\.json is not a valid plan"):
            open_campaign(tmp_path)


def test_a_plan_records_what_the_generator_chose(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path / "bg", latent_graph, sensors=["1.1.1"])
    plan = campaign.plan
    assert (plan.graph_sha256, plan.precision, plan.provider) == (latent_graph.sha256, "float32", CPU)
    assert (plan.batch_size, plan.min_charge, plan.seed, plan.sensors) == (1, MIN_CHARGE, 7, ("1.1.1",))
    assert [list(each.numbers) for each in plan.partitions] == [[5, 6], [7, 8], [9, 10], [11]]
    assert campaign.graph_path.read_bytes() == latent_graph.path.read_bytes()
    assert sorted(path.name for path in campaign.folder.iterdir()) == ["graph.onnx", "plan.json"]
    assert open_campaign(campaign.folder) == campaign


def test_a_second_plan_does_not_replace_the_first(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path, latent_graph)
    with pytest.raises(CampaignError, match=r"has a plan already: go on with it \(pxdbg campaign run"):
        plan_campaign(tmp_path, latent_graph, seed=8)
    assert open_campaign(tmp_path) == campaign


@pytest.mark.parametrize("name", ["part-000001.npz", "part-000000.parquet", "part-000002.json"])
def test_files_that_look_like_partitions_are_not_replaced(latent_graph: GraphFile, tmp_path: Path, name: str) -> None:
    foreign = tmp_path / name
    foreign.write_bytes(b"of another origin")
    with pytest.raises(CampaignError, match=rf"{name} has the name of a partition: move such files away"):
        plan_campaign(tmp_path, latent_graph)
    model = ["--model", str(latent_graph.path), "--provider", "cpu"]
    require_failure(
        invoke("campaign", "plan", "--events", "5", *model, "--output", tmp_path), 1, rf".*{name} has the name of"
    )
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_another_graph_is_not_replaced(latent_graph: GraphFile, event_wide_graph: GraphFile, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    for content in (event_wide_graph.path.read_bytes(), b""):
        path.write_bytes(content)
        with pytest.raises(CampaignError, match=r"graph\.onnx is not the graph to plan with: move it away, or plan"):
            plan_campaign(tmp_path, latent_graph)
        assert path.read_bytes() == content
    path.write_bytes(latent_graph.path.read_bytes())  # as a plan that was stopped leaves it
    assert plan_campaign(tmp_path, latent_graph).graph_path == path


def test_streams_of_dependent_events_are_refused(latent_graph: GraphFile, tmp_path: Path) -> None:
    generator = Generator(latent_graph.path, provider="cpu", seed=1, random_stream="torch")
    with pytest.raises(ArgumentValueError, match="of the stream torch each depends on all before it"):
        write_plan(
            tmp_path,
            generator,
            range(4),
            events_per_part=2,
            format_name="npz",
            provider_options={},
            nintra=1,
            ninter=1,
        )
    assert not list(tmp_path.iterdir())


def test_a_changed_graph_is_not_copied(latent_graph: GraphFile, event_wide_graph: GraphFile, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(latent_graph.path.read_bytes())
    generator = Generator(path, provider="cpu", seed=1)
    path.write_bytes(event_wide_graph.path.read_bytes())
    arguments: dict[str, Any] = {"format_name": "npz", "provider_options": {}, "nintra": 1, "ninter": 1}
    with pytest.raises(CampaignError, match="was changed while the campaign was planned"):
        write_plan(tmp_path / "bg", generator, range(4), events_per_part=2, **arguments)
    assert not (tmp_path / "bg" / "plan.json").exists()


@pytest.mark.parametrize(
    ("precision", "provider", "changes", "differs"),
    [
        ("float32", CPU, {}, ""),
        ("float32", CPU, {"device": "AMD EPYC, features 2"}, "device"),
        ("float32", CPU, {"onnxruntime": "1.22.0"}, "onnxruntime"),
        ("float32", CUDA, {"device": "another GPU"}, "device"),
        ("int8", CPU, {"device": "Intel Xeon, features 3", "onnxruntime": "1.26.0"}, ""),
        ("int8", CPU, {"device": "Intel Xeon, features 3", "architecture": "AMD64"}, ""),
        ("int8", CPU, {"architecture": "aarch64"}, "architecture"),
        ("int8", CPU, {"pxdbg_runtime": "1.1"}, "pxdbg_runtime"),
        ("int8", "OpenVINOExecutionProvider", {"device": "another"}, "device"),
        ("float16", CUDA, {"pxdbg_runtime": "1.1"}, "pxdbg_runtime"),
    ],
)
def test_machines_are_compared_by_the_table_of_reproducibility(
    precision: Precision, provider: str, changes: dict[str, str], differs: str
) -> None:
    found = replace(MACHINE, **changes)
    sentence = explain_mismatch(precision, provider, MACHINE, found)
    if differs:
        values = f"{differs}: {getattr(MACHINE, differs)} in the plan, {getattr(found, differs)} here"
        assert values in sentence
    else:
        assert sentence == ""


def test_the_command_plans(latent_graph: GraphFile, tmp_path: Path) -> None:
    folder = tmp_path / "bg"
    model = ["--model", str(latent_graph.path), "--provider", "cpu", "--seed", "3", "--output", str(folder)]
    arguments = ["campaign", "plan", "--events", "5", "--events-per-part", "2", "--first-event", "10", *model]
    refused = invoke(*arguments, "--random-stream", "torch")
    assert refused.exit_code == 2
    assert "take --random-stream philox" in refused.stderr
    assert not folder.exists()
    done = invoke(*arguments, "--layer", "2", "--min-charge", "9", "--format", "npz")
    assert done.exit_code == 0
    assert f"in 3 partitions: pxdbg campaign run {folder}" in done.stdout
    plan = open_campaign(folder).plan
    assert (plan.seed, plan.min_charge, plan.format) == (3, 9, "npz")
    assert plan.sensors is not None
    assert {name[0] for name in plan.sensors} == {"2"}
    again = invoke(*arguments)
    assert again.exit_code == 1
    assert "has a plan already" in again.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--events", 2**63],
            ".* has at most 100,000 files of 1,000,000 events.*: plan several campaigns with --first",
        ),
        (
            ["--events", 10**12],
            ".* has at most 100,000 files of 1,000,000 events.*: plan several campaigns with --first",
        ),
        (["--events", 10**11], "take --events-per-part 1000000 or more"),
        (["--events", 1, "--format", "foo"], "format must be one of parquet, .*, but is 'foo'"),
        (
            ["--events", 2, "--first-event", 2**32 - 1, "--format", "overlay", "--experiment", 1003],
            "holds event numbers up to 4294967295, .* the last event is 4294967296: plan fewer events, or a smaller",
        ),
    ],
)
def test_what_no_campaign_can_hold_is_refused_before_the_graph_is_loaded(
    tmp_path: Path, options: list[str | int], sentence: str
) -> None:
    folder = tmp_path / "bg"
    done = invoke("campaign", "plan", *options, "--model", tmp_path / "missing.onnx", "--output", folder)
    require_failure(done, 2, rf"Error: .*{sentence}")
    assert not folder.exists()


def test_a_folder_whose_name_is_too_long_is_one_sentence(latent_graph: GraphFile, tmp_path: Path) -> None:
    model = ["--model", str(latent_graph.path), "--provider", "cpu"]
    done = invoke("campaign", "plan", "--events", "5", *model, "--output", str(tmp_path / ("a" * 300)))
    require_failure(done, 1, r"Error: The folder \S+ cannot be made: ")
