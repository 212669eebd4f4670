"""Campaigns on Dask: schedulers that are lost or started again, and addresses at which there is none."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pxdbg_runtime.campaigns import PartOutcome, run_parts
from pxdbg_runtime.campaigns.dask_cluster import connect
from pxdbg_runtime.campaigns.dask_maker import DaskMaker
from pxdbg_runtime.campaigns.dask_worker import WorkerAnswer
from pxdbg_runtime.errors import ArgumentValueError, SchedulerError
from tests.campaigns import plan_campaign
from tests.fake_dask import Answer, FakeClient, made, run_fake

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
            client.scheduler, client.answers, client.plugins = "second", {"b": ""}, {}
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

    def refuse_without_plugin(*_: object, workers: list[str], on_error: str) -> dict[str, WorkerAnswer]:
        assert on_error == "return"
        return dict.fromkeys(workers, WorkerAnswer(refusal="" if len(registered) > 1 else "no session"))

    registered: list[str] = []
    monkeypatch.setattr(client, "scheduler_info", describe)
    monkeypatch.setattr(client, "register_plugin", lambda _, name: registered.append(name))
    monkeypatch.setattr(client, "unregister_worker_plugin", lambda _: None)
    monkeypatch.setattr(client, "run", refuse_without_plugin)
    outcomes, log, _ = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert log == ["the scheduler was started again"]


def test_a_new_worker_at_the_address_of_an_old_one_has_its_full_time_to_get_the_campaign(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the old one, on the scheduler before, does not count."""
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._POLL_S", 0.0)
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker._WITHOUT_PLUGIN_S", 3.5)
    # One second a look: the worker gets the campaign at the fourth look, the second after the scheduler's new start.
    looks = itertools.count()
    now_s = 0.0
    client = FakeClient({"a": LookupError("it did not get the campaign")}, lambda _, worker, part: made(worker, part))

    def look() -> dict[str, int]:
        nonlocal now_s
        now_s += 1
        number = next(looks)
        assert number < 20
        if number == 2:
            client.scheduler, client.plugins = "second", {}
        elif number == 5:
            client.answers["a"] = ""
        return dict.fromkeys(client.answers, 1)

    monkeypatch.setattr(client, "nthreads", look)
    monkeypatch.setattr("pxdbg_runtime.campaigns.dask_maker.time", SimpleNamespace(monotonic=lambda: now_s))
    outcomes, log, _ = run_fake(campaign, client)
    assert sorted(outcome.part for outcome in outcomes) == [0, 1, 2, 3]
    assert "the scheduler was started again" in log
    assert not any("gets no partitions" in line for line in log)


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


@pytest.mark.parametrize("address", ["tcp://h:8786", "tls://h:8786"])
def test_certificates_that_cannot_be_read_make_no_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr("distributed.Client", lambda *_, **__: pytest.fail("a client was made"))
    missing = str(tmp_path / "no.pem")
    with (
        dask.config.set({"distributed.comm.tls.ca-file": missing, "distributed.comm.tls.client.cert": missing}),
        pytest.raises(ArgumentValueError, match=f"^The certificates .* cannot be used for {address}: .*No such file"),
        connect(address),
    ):
        pytest.fail("nobody is there")
