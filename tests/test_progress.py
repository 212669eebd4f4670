"""Progress: a bar on a terminal, few lines in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from pxdbg_runtime.command_line import progress
from pxdbg_runtime.command_line.progress import show_progress, track

CHECKOUT: Final = Path(__file__).resolve().parent.parent
COUNT: Final = """
from pxdbg_runtime.command_line.progress import show_progress
with show_progress(total=5, description="steps") as progress:
    progress.omit(2)
    progress.advance(3)
"""


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def lines_of(capsys: pytest.CaptureFixture[str], clock: Clock, total: int, step_s: float) -> list[str]:
    for number in track(range(total), total=total, description="events"):
        assert number < total
        clock.now_s += step_s
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_a_short_job_has_a_first_and_a_last_line(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    assert lines_of(capsys, clock, 100, 0.5) == ["events: 0/100", "events: 100/100 in 0:00:50, 2.0 events/s"]
    assert lines_of(capsys, clock, 1, 4) == ["events: 0/1", "events: 1/1 in 0:00:04, 0.25 events/s"]
    assert lines_of(capsys, clock, 0, 0) == ["events: 0/0", "events: 0/0 in 0:00:00"]


def test_a_long_job_has_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    lines = lines_of(capsys, clock, 100_000, 1)
    assert len(lines) == 11
    assert lines[1] == "events: 10000/100000, 1.0 events/s, 25:00:00 left"
    assert lines[9] == "events: 90000/100000, 1.0 events/s, 2:46:40 left"
    assert lines[10] == "events: 100000/100000 in 27:46:40, 1.0 events/s"


def test_a_job_of_minutes_has_a_line_a_minute(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    lines = [line.split(",")[0] for line in lines_of(capsys, clock, 300, 1)]
    assert lines == [*(f"events: {n}/300" for n in (0, 60, 120, 180, 240)), "events: 300/300 in 0:05:00"]


def test_omitted_items_leave_the_total_and_the_rate(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with show_progress(total=1000, description="events") as shown:
        shown.omit(800)
        clock.now_s += 100
        shown.advance(50)
        clock.now_s += 100
        shown.advance(50)
        shown.omit(100)
    assert capsys.readouterr().err.splitlines() == [
        "events: 0/1000",
        "events: 50/200, 0.5 events/s, 0:05:00 left",
        "events: 100/200, 0.5 events/s, 0:03:20 left",
        "events: 100/100 in 0:03:20, 0.5 events/s",
    ]


def test_a_rate_may_be_left_out(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    for _ in track(range(2), total=2, description="files", shows_rate=False):
        clock.now_s += 90
    lines = ["files: 0/2", "files: 1/2, 0:01:30 left", "files: 2/2 in 0:03:00"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_failure_ends_without_a_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), show_progress(total=3, description="events") as shown:  # noqa: PT012
        shown.advance(1)
        message = "broken"
        raise ValueError(message)
    assert capsys.readouterr().err == "events: 0/3\n"


@pytest.mark.parametrize(("term", "is_bar"), [("xterm", True), ("dumb", False), ("unknown", False)])
def test_a_bar_on_a_terminal_that_can_draw_one(term: str, is_bar: bool) -> None:
    pty = pytest.importorskip("pty", reason="this platform has no pseudo-terminals")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": term}
    for variable in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        environment.pop(variable, None)
    done = subprocess.run([sys.executable, "-c", COUNT], cwd=CHECKOUT, env=environment, stderr=theirs, check=True)
    assert done.returncode == 0
    os.close(theirs)
    printed = os.read(ours, 65536).decode()
    os.close(ours)
    assert ("\x1b[2K" in printed or "\x1b[?25l" in printed) == is_bar
    assert ("3/3" in printed) == is_bar or re.fullmatch(r"steps: 0/5\r\nsteps: 3/3 in 0:00:00, .*\r\n", printed)
