"""Campaigns on Dask: how partitions are given to workers, which come, go, refuse and fail."""

from __future__ import annotations

import itertools
import re
import sys
import time
from typing import TYPE_CHECKING, cast

import pytest

from pxdbg_runtime.campaigns import PartOutcome, open_campaign, run_parts
from pxdbg_runtime.campaigns.dask_maker import DaskMaker
from pxdbg_runtime.campaigns.dask_worker import WorkerAnswer
from pxdbg_runtime.errors import CampaignError, MachineMismatchError, SchedulerError
from tests.campaigns import change_plan, plan_campaign
from tests.fake_dask import Answer, FakeClient, FakeFuture, made, run_fake

if TYPE_CHECKING:
    from pathlib import Path

    from distributed import Client

    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

pytest.importorskip("distributed")
dask = pytest.importorskip("dask")


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return plan_campaign(tmp_path / "bg", latent_graph)


def failed(worker: str, part: int) -> PartOutcome:
    return PartOutcome(part=part, state="failed", host=worker, reason="A sentence.")


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


def test_a_failure_names_the_machine_of_the_worker(campaign: Campaign) -> None:
    client = FakeClient({"tcp://a:1": ""}, lambda *_: PartOutcome(part=1, state="failed", host="a", reason="Full."))
    maker = DaskMaker(campaign=campaign, client=cast("Client", client), log=lambda _: None, retries=0)
    assert run_parts(campaign, [1], maker, advance=lambda _: None, report=lambda _: None) == [1]
    failure = campaign.read_failure(1)
    assert failure is not None
    assert (failure.host, failure.reason) == ("a", "on a: Full.")


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


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (WorkerAnswer(refusal="The graph was replaced."), "The graph was replaced."),
        (
            ModuleNotFoundError("No module named 'pxdbg_runtime'"),
            "ModuleNotFoundError: No module named .pxdbg_runtime.",
        ),
    ],
)
def test_only_unfit_machines_end_the_run_as_such(
    campaign: Campaign, answer: WorkerAnswer | Exception, reason: str
) -> None:
    client = FakeClient({"a": answer, "b": "It differs."}, lambda *_: None)
    with pytest.raises(CampaignError, match=rf"^None of the 2 workers can run the campaign, .*: {reason}"):
        run_fake(campaign, client)


@pytest.mark.parametrize("not_yet", [None, OSError("Timed out trying to connect")], ids=["no session", "no connection"])
def test_a_slow_worker_is_asked_again(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, not_yet: OSError | None
) -> None:
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    client = FakeClient({"a": not_yet, "b": "It differs."}, lambda _, worker, part: made(worker, part))
    looks = itertools.count(1)

    def list_workers() -> dict[str, int]:
        if next(looks) == 4:
            client.answers["a"] = ""
        return dict.fromkeys(client.answers, 1)

    monkeypatch.setattr(client, "nthreads", list_workers)
    outcomes, log, _ = run_fake(campaign, client)
    assert {outcome.host for outcome in outcomes} == {"a"}
    assert log == ["worker b gets no partitions: It differs.", "waiting for workers that can run the campaign"]


def test_workers_that_are_lost_before_they_answer_end_the_run(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They crash while they create their sessions, and are started again at other addresses."""
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    client = FakeClient({}, lambda *_: None)
    numbers = itertools.count()

    def start_again() -> dict[str, int]:
        number = next(numbers)
        assert number < 20
        client.answers = {f"{number}": None if number % 2 else OSError("Stream is closed")}
        return dict.fromkeys(client.answers, 1)

    monkeypatch.setattr(client, "nthreads", start_again)
    with pytest.raises(SchedulerError, match=r"^5 workers were lost while they created their sessions: "):
        run_fake(campaign, client)


def test_a_worker_that_never_gets_the_campaign_is_refused(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection failed while it was to get it; one that starts only lacks it for a moment."""
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._WITHOUT_PLUGIN_S", 0.2)
    client = FakeClient({"a": LookupError("it did not get the campaign")}, lambda *_: None)
    began_s = time.monotonic()
    with pytest.raises(
        CampaignError, match=r"None of the 1 workers can run the campaign, .* it did not get the campaign"
    ):
        run_fake(campaign, client)
    assert time.monotonic() - began_s > 0.2


def test_workers_come_and_go(campaign: Campaign) -> None:
    def answer(client: FakeClient, worker: str, part: int) -> Answer:
        if worker == "a":  # it is killed, and another starts
            del client.answers["a"]
            client.answers["b"] = ""
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
            del client.answers["a"]
            return None
        return made(worker, part)

    def start_again_at_the_third_look() -> dict[str, int]:
        if "a" not in client.answers and next(looks_without_it) == 3:
            client.answers["c"] = ""
        return dict.fromkeys(client.answers, 1)

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
            del client.answers["b"]
        elif part == 1:
            client.answers["b"] = ""
        return made(worker, part)

    client = FakeClient({"a": "", "b": "It differs."}, answer)
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    outcomes, log, _ = run_fake(campaign, client)
    assert len(outcomes) == 4
    assert client.asked == {0: ["a"], 1: ["a"], 2: ["a"], 3: ["b"]}
    assert log == ["worker b gets no partitions: It differs."]


def test_a_run_that_ends_leaves_the_plugin_of_another_run(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    client = FakeClient({"a": ""}, lambda _, worker, part: made(worker, part))
    log: list[str] = []
    maker = DaskMaker(campaign=campaign, client=cast("Client", client), log=log.append)
    outcomes = maker.make([0, 1], lambda _: None)
    assert next(outcomes).part == 0
    assert [outcome.part for outcome in maker.make([2, 3], lambda _: None)] == [2, 3]
    client.answers = {"b": ""}  # a worker that starts after the other run has ended
    assert [outcome.part for outcome in outcomes] == [1]
    assert (client.asked[1], log, client.plugins) == (["b"], [], {})


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
