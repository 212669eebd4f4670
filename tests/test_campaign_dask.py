"""Campaigns on Dask: how partitions are given to workers, and that the files are those of one process."""

from __future__ import annotations

import asyncio
import itertools
import platform
import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from msgspec.structs import replace

from pxdbg_runtime.campaigns import PartOutcome, dask_worker, open_campaign, open_generator, run_parts
from pxdbg_runtime.campaigns.dask_cluster import connect
from pxdbg_runtime.campaigns.dask_maker import DaskMaker
from pxdbg_runtime.campaigns.dask_worker import GPU_RESOURCE, SessionPlugin, explain_refusal, make_part_on_worker
from pxdbg_runtime.errors import ArgumentValueError, MachineMismatchError, SchedulerError
from pxdbg_runtime.limits.address_space import estimate_process_memory
from tests.campaigns import change_plan, plan_campaign
from tests.fake_dask import Answer, FakeClient, FakeFuture

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from pxdbg_runtime import Generator
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

pytest.importorskip("distributed")


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return plan_campaign(tmp_path / "bg", latent_graph)


def made(worker: str, part: int) -> PartOutcome:
    return PartOutcome(part=part, state="made", host=worker)


def failed(worker: str, part: int) -> PartOutcome:
    return PartOutcome(part=part, state="failed", host=worker, reason="A sentence.")


def run_fake(
    campaign: Campaign, client: FakeClient, *, retries: int = 3
) -> tuple[list[PartOutcome], list[str], list[int]]:
    log: list[str] = []
    advanced: list[int] = []
    maker = DaskMaker(campaign=campaign, client=cast("Client", client), log=log.append, retries=retries)
    outcomes = list(maker.make(range(campaign.plan.n_parts), advanced.append))
    assert client.plugins == {}
    return outcomes, log, advanced


def test_each_partition_goes_to_one_worker(campaign: Campaign) -> None:
    client = FakeClient({"a": "", "b": ""}, lambda _, worker, part: made(worker, part))
    outcomes, log, advanced = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert {len(workers) for workers in client.asked.values()} == {1}
    assert {worker for workers in client.asked.values() for worker in workers} == {"a", "b"}
    assert (log, sorted(advanced), client.resources) == ([], [1, 2, 2, 2], {"None"})


def test_only_generated_events_count_as_progress(campaign: Campaign) -> None:
    found = PartOutcome(part=0, state="complete", host="a")
    client = FakeClient({"a": ""}, lambda _, worker, part: found if part == 0 else made(worker, part))
    _outcomes, _log, advanced = run_fake(campaign, client)
    assert sorted(advanced) == [1, 2, 2]


def test_a_failed_partition_goes_to_another_worker(campaign: Campaign) -> None:
    client = FakeClient(
        {"a": "", "b": ""}, lambda _, worker, part: failed(worker, part) if worker == "a" else made(worker, part)
    )
    outcomes, log, _ = run_fake(campaign, client)
    assert {outcome.state for outcome in outcomes} == {"made"}
    assert all(workers in (["b"], ["a", "b"]) for workers in client.asked.values())
    assert any(re.fullmatch(r"partition \d failed \(try 1 of 4\) on a: A sentence\.", line) for line in log)


def test_an_answer_that_is_lost_with_its_worker_is_asked_of_another(campaign: Campaign) -> None:
    client = FakeClient(
        {"a": "", "b": ""}, lambda _, worker, part: TimeoutError() if worker == "a" else made(worker, part)
    )
    outcomes, log, _ = run_fake(campaign, client)
    assert {outcome.state for outcome in outcomes} == {"made"}
    assert all(workers in (["b"], ["a", "b"]) for workers in client.asked.values())
    assert any(line.endswith("on a: its answer was lost with the worker") for line in log)


def test_a_partition_that_always_fails_is_given_up(campaign: Campaign) -> None:
    def answer(_: FakeClient, worker: str, part: int) -> Answer:
        return RuntimeError("no memory") if part == 1 else made(worker, part)

    client = FakeClient({"a": ""}, answer)
    outcomes, log, _ = run_fake(campaign, client, retries=2)
    assert {outcome.part: outcome.state for outcome in outcomes} == {0: "made", 1: "failed", 2: "made", 3: "made"}
    assert client.asked[1] == ["a"] * 3
    assert len(log) == 2
    reason = next(outcome.reason for outcome in outcomes if outcome.state == "failed")
    assert reason == "on a: RuntimeError: no memory"


def test_a_worker_that_does_not_fit_gets_nothing(campaign: Campaign) -> None:
    client = FakeClient({"a": "It differs.", "b": ""}, lambda _, worker, part: made(worker, part))
    outcomes, log, _ = run_fake(campaign, client)
    assert len(outcomes) == 4
    assert {worker for workers in client.asked.values() for worker in workers} == {"b"}
    assert log == ["worker a gets no partitions: It differs."]


def test_workers_that_do_not_fit_end_the_run(campaign: Campaign) -> None:
    client = FakeClient({"a": "It differs.", "b": "It differs."}, lambda *_: None)
    with pytest.raises(MachineMismatchError, match=r"None of the 2 workers can run the campaign, .*: It differs\."):
        run_fake(campaign, client)
    assert client.plugins == {}


def test_workers_come_and_go(campaign: Campaign) -> None:
    def answer(client: FakeClient, worker: str, part: int) -> Answer:
        if worker == "a":  # it is killed, and another starts
            del client.refusals["a"]
            client.refusals["b"] = ""
            return None
        return made(worker, part)

    client = FakeClient({"a": ""}, answer)
    outcomes, log, _ = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert log == [
        "partition 0 failed (try 1 of 4) its worker a was lost: killed, out of memory, or at its end",
    ]


def test_a_worker_that_starts_again_is_waited_for_beside_one_that_does_not_fit(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_without_it = itertools.count(1)

    def answer(client: FakeClient, worker: str, part: int) -> Answer:
        if worker == "a":  # it is killed; its nanny starts it again at another address
            del client.refusals["a"]
            return None
        return made(worker, part)

    def start_again_at_the_third_look() -> dict[str, int]:
        if "a" not in client.refusals and next(looks_without_it) == 3:
            client.refusals["c"] = ""
        return dict.fromkeys(client.refusals, 1)

    client = FakeClient({"a": "", "b": "It differs."}, answer)
    monkeypatch.setattr(client, "nthreads", start_again_at_the_third_look)
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    outcomes, log, _ = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert {outcome.host for outcome in outcomes} == {"c"}
    assert log == [
        "worker b gets no partitions: It differs.",
        "partition 0 failed (try 1 of 4) its worker a was lost: killed, out of memory, or at its end",
        "waiting for workers that can run the campaign",
    ]


def test_a_worker_that_was_refused_is_asked_again_when_it_starts_again(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(client: FakeClient, worker: str, part: int) -> Answer:
        if part == 0:
            del client.refusals["b"]
        elif part == 1:
            client.refusals["b"] = ""
        return made(worker, part)

    client = FakeClient({"a": "", "b": "It differs."}, answer)
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    outcomes, log, _ = run_fake(campaign, client)
    assert len(outcomes) == 4
    assert client.asked == {0: ["a"], 1: ["a"], 2: ["a"], 3: ["b"]}
    assert log == ["worker b gets no partitions: It differs."]


def test_a_scheduler_that_has_gone_ends_the_run(campaign: Campaign) -> None:
    def answer(client: FakeClient, worker: str, part: int) -> Answer:
        if part < 2:
            return made(worker, part)
        client.status = "closed"
        return None

    outcomes: list[PartOutcome] = []
    client = FakeClient({"a": ""}, answer)
    maker = DaskMaker(campaign=campaign, client=cast("Client", client), log=lambda _: None)
    with pytest.raises(SchedulerError, match="The Dask scheduler at tcp://fake does not answer any more") as caught:
        run_parts(campaign, range(4), maker, advance=lambda _: None, report=outcomes.append)
    assert caught.value.address == "tcp://fake"
    assert len(outcomes) == 2


def test_a_scheduler_that_is_started_again_goes_on(campaign: Campaign) -> None:
    def answer(client: FakeClient, worker: str, part: int) -> Answer:
        if client.scheduler == "first" and part == 1:
            client.scheduler, client.refusals, client.plugins = "second", {"b": ""}, {}
            return None
        return made(worker, part)

    client = FakeClient({"a": ""}, answer)
    outcomes, log, _ = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert client.asked == {0: ["a"], 1: ["a", "b"], 2: ["b"], 3: ["b"]}
    assert log == ["the scheduler was started again"]


def test_new_workers_are_not_asked_before_their_scheduler_has_the_plugin(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scheduler's name is an old one for a moment after it was started again."""
    client = FakeClient({"a": ""}, lambda _, worker, part: made(worker, part))
    ids = iter(["first"] * 3)

    def describe() -> dict[str, str]:
        return {"address": "tcp://fake", "id": next(ids, "second")}

    def refuse_without_plugin(*_: object, workers: list[str], on_error: str) -> dict[str, str]:
        assert on_error == "return"
        return dict.fromkeys(workers, "" if len(registered) > 1 else "no session")

    registered: list[str] = []
    monkeypatch.setattr(client, "scheduler_info", describe)
    monkeypatch.setattr(client, "register_plugin", lambda _, name: registered.append(name))
    monkeypatch.setattr(client, "unregister_worker_plugin", lambda _: None)
    monkeypatch.setattr(client, "run", refuse_without_plugin)
    outcomes, log, _ = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert log == ["the scheduler was started again"]


def test_a_run_that_ends_leaves_the_plugin_of_another_run(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    client = FakeClient({"a": ""}, lambda _, worker, part: made(worker, part))
    log: list[str] = []
    maker = DaskMaker(campaign=campaign, client=cast("Client", client), log=log.append)
    outcomes = maker.make([0, 1], lambda _: None)
    assert next(outcomes).part == 0
    assert [outcome.part for outcome in maker.make([2, 3], lambda _: None)] == [2, 3]
    client.refusals = {"b": ""}  # a worker that starts after the other run has ended
    assert [outcome.part for outcome in outcomes] == [1]
    assert (client.asked[1], log, client.plugins) == (["b"], [], {})


def test_nobody_at_the_address_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_cluster._CONNECT_S", 0.2)
    with (
        pytest.raises(SchedulerError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9 .*: start one with"),
        connect("tcp://127.0.0.1:9"),
    ):
        pytest.fail("nobody is there")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://h:abc", "is no address of a Dask scheduler .*abc.*: expected one as tcp://host:8786"),
        ("h", "is no address of a Dask scheduler .missing port number.*"),
        ("nosuch://h:1", "is no address of a Dask scheduler .unknown address scheme 'nosuch'.*"),
        ("tls://h:8786", r"needs certificates, of which Dask's configuration names none: set distributed\.comm\.tls\."),
    ],
)
def test_an_address_that_dask_refuses_makes_no_client(
    monkeypatch: pytest.MonkeyPatch, address: str, expected: str
) -> None:
    """A client whose constructor fails waits a minute when it is dropped, and then prints a traceback."""
    monkeypatch.setattr("distributed.Client", lambda *_, **__: pytest.fail("a client was made"))
    with pytest.raises(ArgumentValueError, match=f"^{address} {expected}") as caught, connect(address):
        pytest.fail("nobody is there")
    assert "dask scheduler." not in str(caught.value)


def set_up(campaign: Campaign, **resources: float) -> tuple[SessionPlugin, Any]:
    key = str(campaign.folder), campaign.plan_sha256, False
    plugin = SessionPlugin(key, is_local=False)
    worker: Any = SimpleNamespace(state=SimpleNamespace(total_resources=resources), plugins={"it": plugin})
    asyncio.run(plugin.setup(worker))
    return plugin, worker


def test_a_worker_keeps_one_session_and_answers_in_text(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def count(campaign: Campaign, *, allow_mixed_hardware: bool) -> Generator:
        opened.append(allow_mixed_hardware)
        return open_generator(campaign, allow_mixed_hardware=allow_mixed_hardware)

    monkeypatch.setattr(dask_worker, "open_generator", count)
    plugin, worker = set_up(campaign)
    key = str(campaign.folder), campaign.plan_sha256, False
    assert asyncio.run(explain_refusal("it", worker)) == ""
    monkeypatch.setattr(dask_worker, "_START_S", 0.2)
    assert asyncio.run(explain_refusal("another", worker)) == "it has not created a session within 0.2 s"
    assert [make_part_on_worker(key, part).state for part in (0, 1, 1)] == ["made", "made", "complete"]
    assert opened == [False]
    campaign.digits_path(2).mkdir()
    outcome = make_part_on_worker(key, 2)
    assert (outcome.state, "is a folder" in outcome.reason) == ("failed", True)
    plugin.teardown(worker)
    assert make_part_on_worker(key, 3).state == "made"
    assert len(opened) == 2
    plugin.teardown(worker)


def test_a_worker_refuses_what_it_cannot_run(campaign: Campaign) -> None:
    other = change_plan(campaign, machine=replace(campaign.plan.machine, onnxruntime="1.0.0"))
    assert "onnxruntime: 1.0.0 in the plan" in str(set_up(other)[0].refusal)
    assert "has another plan on " in str(set_up(campaign)[0].refusal)
    on_gpu = change_plan(campaign, provider="CUDAExecutionProvider")
    assert "start it with dask worker --resources GPU=1" in str(set_up(on_gpu)[0].refusal)
    assert "are not known to be those of the plan" in str(set_up(on_gpu, **{GPU_RESOURCE: 1.0})[0].refusal)


def test_a_folder_that_workers_do_not_see_is_named(campaign: Campaign) -> None:
    folder = campaign.folder.rename(campaign.folder.with_name("moved"))
    expected = f"{campaign.folder} is not visible on {platform.node()} under this path: share the folder"
    assert expected in str(set_up(campaign)[0].refusal)
    folder.rename(campaign.folder)
    assert set_up(campaign)[0].refusal == ""


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege")
def test_workers_get_the_path_of_the_folder_as_it_was_given(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link here may be a folder on other machines, where what it leads to has another name."""
    (tmp_path / "link").symlink_to(campaign.folder)
    folders: list[str] = []

    def submit(_: object, key: tuple[str, str, bool], part: int, **__: object) -> FakeFuture:
        folders.append(key[0])
        future = FakeFuture()
        future.finish(made("a", part))
        return future

    client = FakeClient({"a": ""}, lambda *_: None)
    monkeypatch.setattr(client, "submit", submit)
    monkeypatch.chdir(tmp_path)
    run_fake(open_campaign("link"), client)
    assert folders == [str(tmp_path / "link")] * 4


def test_partitions_for_gpus_ask_for_the_resource(campaign: Campaign) -> None:
    on_gpu = change_plan(campaign, provider="CUDAExecutionProvider")
    client = FakeClient({"a": ""}, lambda _, worker, part: made(worker, part))
    run_fake(on_gpu, client)
    assert client.resources == {"{'GPU': 1}"}


def test_the_memory_of_a_worker_grows_with_its_work() -> None:
    small = estimate_process_memory("int8", 1, 5000, 10**7)
    assert 600e6 < small < 1200e6
    assert estimate_process_memory("int8", 2, 5000, 10**7) - small == 40_000_000
    assert estimate_process_memory("int8", 1, 5000, 2 * 10**7) - small == 20_000_000
