"""Runs of a whole campaign in one process: what they make, skip, wait for and give up, and how they are stopped."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Literal

import pytest

from pxdbg_runtime.campaigns import (
    LocalMaker,
    PartOutcome,
    find_work,
    make_part,
    open_campaign,
    open_generator,
    run_parts,
)
from pxdbg_runtime.campaigns.part_lock import hold_lock
from pxdbg_runtime.errors import CampaignError
from pxdbg_runtime.formats import merge_files
from tests.campaigns import make_parts, plan_campaign, read_parts
from tests.test_command_line import invoke, words
from tests.test_command_line_signals import PXDBG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from pxdbg_runtime import Generator
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

PartState = Literal["made", "complete", "busy", "failed"]


@pytest.fixture
def campaign(latent_graph: GraphFile, tmp_path: Path) -> Campaign:
    return plan_campaign(tmp_path / "bg", latent_graph)


class ScriptedMaker:
    """Answers each try with the next state of a list."""

    def __init__(self, states: str) -> None:
        names: dict[str, PartState] = {"m": "made", "b": "busy", "f": "failed", "c": "complete"}
        self.states = deque(names[state] for state in states)
        self.asked: list[list[int]] = []

    def make(self, parts: Sequence[int], advance: Callable[[int], None]) -> Iterator[PartOutcome]:
        self.asked.append(list(parts))
        for part in parts:
            advance(1)
            state = self.states.popleft()
            yield PartOutcome(part=part, state=state, host="here", reason="A sentence." if state == "failed" else "")


def run_scripted(campaign: Campaign, states: str, parts: list[int]) -> tuple[ScriptedMaker, list[str], list[int]]:
    maker = ScriptedMaker(states)
    reported: list[str] = []
    failed = run_parts(
        campaign, parts, maker, advance=lambda _: None, report=lambda each: reported.append(f"{each.part} {each.state}")
    )
    assert not maker.states
    return maker, reported, sorted(failed)


def test_partitions_of_other_processes_are_asked_for_again(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("pxdbg_runtime.campaigns.running.time.sleep", pauses.append)
    maker, reported, failures = run_scripted(campaign, "mbb" + "bc" + "m", [0, 1, 2])
    assert maker.asked == [[0, 1, 2], [1, 2], [1]]
    assert (reported, failures, len(pauses)) == (["0 made", "2 complete", "1 made"], [], 2)


@pytest.mark.parametrize(("is_made", "n_sessions", "last"), [(True, 1, "complete"), (False, 2, "made")])
def test_a_run_that_waits_for_another_creates_no_sessions(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, is_made: bool, n_sessions: int, last: str
) -> None:
    generator = open_generator(campaign, allow_mixed_hardware=False)
    opened: list[Campaign] = []
    pauses: list[float] = []

    def count(campaign: Campaign, **_: bool) -> Generator:
        opened.append(campaign)
        return generator

    def end_at_the_third_pause(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 3:
            other.close()
            if is_made:
                make_part(campaign, 1, lambda: generator)

    monkeypatch.setattr("pxdbg_runtime.campaigns.running.open_generator", count)
    monkeypatch.setattr("pxdbg_runtime.campaigns.running.time", SimpleNamespace(sleep=end_at_the_third_pause))
    with ExitStack() as other:
        other.enter_context(hold_lock(campaign.lock_path(1)))
        states = make_parts(campaign)
    assert states == Counter(["made"] * 3 + [last])
    assert (len(pauses), len(opened)) == (3, n_sessions)


def test_failures_are_recorded_and_others_made(campaign: Campaign) -> None:
    _, reported, failures = run_scripted(campaign, "fmf", [0, 1, 2])
    assert (reported, failures) == (["0 failed", "1 made", "2 failed"], [0, 2])
    recorded = [campaign.read_failure(part) for part in (0, 2)]
    assert [each.reason for each in recorded if each is not None] == ["A sentence."] * 2


def test_five_failures_in_a_row_end_the_run(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path / "bg", latent_graph, events=20, events_per_part=1)
    with pytest.raises(CampaignError, match="5 partitions failed one after the other, the last because: A sentence"):
        run_scripted(campaign, "ffffmfffff", list(range(12)))
    assert campaign.read_failure(9) is not None


def test_partitions_that_failed_keep_no_others_from_being_made(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path / "bg", latent_graph, events=6, events_per_part=1)
    for part in range(5):
        campaign.digits_path(part).mkdir()
    for state in ("missing", "complete"):
        done = invoke("campaign", "run", campaign.folder, "--workers", 1)
        assert done.exit_code == 1
        assert "5 partitions failed one after the other, the last because: " in done.stderr
        assert (
            f". Correct the cause, then run {campaign.run_command}, which tries the other partitions first.\n"
            in done.stderr
        )
        assert campaign.examine(5, compare_hash=True).state == state
    assert find_work(campaign, compare_hash=True)[0] == [0, 1, 2, 3, 4]


def test_a_run_makes_what_is_missing(campaign: Campaign) -> None:
    make_parts(campaign, [0, 1, 2, 3])
    expected = read_parts(campaign)
    untouched = campaign.digits_path(3).stat().st_ino
    campaign.digits_path(0).unlink()
    campaign.record_path(0).unlink()
    campaign.record_path(1).unlink()
    content = campaign.digits_path(2).read_bytes()
    campaign.digits_path(2).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert find_work(campaign, compare_hash=False)[0] == [0, 1]
    done = invoke("campaign", "run", campaign.folder, "--workers", 1)
    assert done.exit_code == 0
    assert f"{campaign.digits_path(2)} has another SHA-256 than its record: it was changed. It is made" in done.stderr
    assert "1 of 4 partitions are complete already" in done.stderr
    assert "events: 6/6" in done.stderr
    assert re.search(r"^partitions checked: 0/4\npartitions checked: 4/4 in 0:00:\d\d\n", done.stderr)
    assert f"{campaign.folder} is complete: 4 partitions" in done.stdout
    assert read_parts(campaign) == expected
    assert campaign.digits_path(3).stat().st_ino == untouched
    again = invoke("campaign", "run", campaign.folder)
    assert again.exit_code == 0
    assert "events: " not in again.stderr


def test_only_generated_events_count_as_progress(campaign: Campaign) -> None:
    make_parts(campaign, [1])
    advanced: list[int] = []
    outcomes = list(LocalMaker(campaign=campaign).make([0, 1, 3], advanced.append))
    assert [outcome.state for outcome in outcomes] == ["made", "complete", "made"]
    assert sum(advanced) == 2 + 1


def test_what_another_run_made_leaves_the_total(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    make_parts(campaign, [1])
    command = sys.modules["pxdbg_runtime.command_line.campaign"]  # the package has the Typer of this name
    monkeypatch.setattr(command, "find_work", lambda *_, **__: ([0, 1, 2, 3], []))
    done = invoke("campaign", "run", campaign.folder, "--workers", 1)
    assert done.exit_code == 0
    assert re.search(r"events: 0/7\nevents: 5/5 in 0:00:\d\d, [\d.]+ events/s\n", done.stderr)


def test_a_run_refuses_files_of_another_plan(campaign: Campaign, latent_graph: GraphFile, tmp_path: Path) -> None:
    other = plan_campaign(tmp_path / "other", latent_graph, seed=8)
    make_parts(other)
    for part in (0, 1):
        campaign.record_path(part).write_bytes(other.record_path(part).read_bytes())
    done = invoke("campaign", "run", campaign.folder)
    assert done.exit_code == 1
    assert "belongs to another plan" in done.stderr
    assert "(and 1 more): move such files away" in done.stderr
    assert not read_parts(campaign)


def test_failures_give_an_exit_code_and_the_next_run_goes_on(campaign: Campaign) -> None:
    campaign.digits_path(1).mkdir()
    failed = invoke("campaign", "run", campaign.folder, "--workers", 1)
    assert failed.exit_code == 1
    assert "partition 1 failed: " in failed.stderr
    assert f"1 partition failed: see pxdbg campaign status {campaign.folder}" in failed.stderr
    assert find_work(campaign, compare_hash=True)[0] == [1]
    campaign.digits_path(1).rmdir()
    assert invoke("campaign", "run", campaign.folder, "--workers", 1).exit_code == 0
    assert campaign.read_failure(1) is None


def test_commands_to_copy_quote_the_folder(latent_graph: GraphFile, tmp_path: Path) -> None:
    campaign = plan_campaign(tmp_path / "my runs", latent_graph, events=1)
    quoted = f"'{campaign.folder}'"
    assert campaign.run_command == f"pxdbg campaign run {quoted}"
    campaign.digits_path(0).mkdir()
    failed = invoke("campaign", "run", campaign.folder, "--workers", 1)
    commands = f"see pxdbg campaign status {quoted}, and go on with {campaign.run_command}\n"
    assert commands in failed.stderr
    assert (
        f"go on with it ({campaign.run_command})"
        in invoke("campaign", "plan", "--events", 1, "--output", campaign.folder).stderr
    )


def test_help_says_that_only_dask_tries_again() -> None:
    assert "on another worker if there is one; none without Dask" in words(invoke("campaign", "run", "--help").stdout)


def test_two_runs_share_the_work(campaign: Campaign) -> None:
    threads = [threading.Thread(target=make_parts, args=(campaign,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert find_work(campaign, compare_hash=True) == ([], [])
    assert not [path for path in campaign.folder.iterdir() if path.name.startswith(".")]
    assert merge_files([campaign.digits_path(part) for part in range(4)]).n_events == 7


def test_workers_and_scheduler_exclude_each_other(campaign: Campaign) -> None:
    done = invoke("campaign", "run", campaign.folder, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1")
    assert done.exit_code == 2
    assert "leave one of them out" in done.stderr


@pytest.mark.parametrize("address", ["", " "])
def test_an_empty_address_starts_no_workers_here(campaign: Campaign, address: str) -> None:
    """It is that of a variable which is not set."""
    done = invoke("campaign", "run", campaign.folder, "--scheduler", address)
    assert done.exit_code == 2
    assert "--scheduler must be an address such as tcp://host:8786, but is empty" in words(done.stderr)
    assert not read_parts(campaign)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.slow
def test_a_stopped_run_says_how_to_go_on(campaign: Campaign) -> None:
    make_parts(campaign, [0])
    command = [sys.executable, "-c", PXDBG, "campaign", "run", str(campaign.folder), "--workers", "1"]
    with (
        hold_lock(campaign.lock_path(2)),  # so that the run waits for ever
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        while campaign.examine(3, compare_hash=False).state != "complete":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    last = error.splitlines()[-1]
    go_on = f"go on with pxdbg campaign run {campaign.folder}"
    assert last == f"pxdbg campaign run was stopped by SIGINT: 3 of 4 partitions are complete; {go_on}."
    assert make_parts(open_campaign(campaign.folder)) == {"complete": 3, "made": 1}
