"""Several processes and one cache: they wait for each other, and one that is killed does no harm."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.conditions_server import (
    CONTENT,
    NAME,
    PLACE,
    TAG,
    ConditionsServer,
    answer,
    fetch,
    files,
    send_slowly,
    stall,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT: Final = Path(__file__).resolve().parent.parent
FOLDER, FILE = PLACE.split("/")
PARTIAL: Final = f"{FOLDER}/.{FILE}.*.partial"
PROGRAM: Final = f"""
import sys
from pathlib import Path
from export.conditions.fetching import fetch_payload
from export.conditions.limits import Limits

cache, limits = Path(sys.argv[2]), Limits(lock_poll_s=0.01)
found = fetch_payload({NAME!r}, {TAG!r}, sources=sys.argv[1:2], cache=cache, limits=limits)
print(found.url is None)
"""


class Downloads:
    """Processes that fetch the payload of a server into a cache; none outlives its test."""

    def __init__(self, server: ConditionsServer, cache: Path) -> None:
        self._command = [sys.executable, "-c", PROGRAM, server.url, str(cache)]
        self.running: list[subprocess.Popen[str]] = []

    def begin(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(self._command, cwd=CHECKOUT, stdout=pipe, stderr=pipe, text=True)
        self.running.append(process)
        return process


@pytest.fixture
def downloads(server: ConditionsServer, tmp_path: Path) -> Iterator[Downloads]:
    made = Downloads(server, tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.communicate(timeout=60)


def wait_for_content(cache: Path) -> None:
    end = time.monotonic() + 60
    while not any(partial.stat().st_size for partial in cache.glob(PARTIAL)):
        assert time.monotonic() < end
        time.sleep(0.005)


def test_two_processes_download_once(server: ConditionsServer, downloads: Downloads, tmp_path: Path) -> None:
    server.steps["file"] = [send_slowly]
    both = [downloads.begin(), downloads.begin()]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(output for output, _ in said) == ["False\n", "True\n"]
    assert server.n_files() == 1
    assert (tmp_path / PLACE).read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_after_a_kill_in_mid_download_the_next_run_succeeds(
    server: ConditionsServer, downloads: Downloads, tmp_path: Path
) -> None:
    server.steps["file"] = [stall, answer(CONTENT)]
    process = downloads.begin()
    wait_for_content(tmp_path)
    process.kill()
    assert process.wait(timeout=60) == -9
    assert not (tmp_path / PLACE).exists()
    assert fetch(tmp_path, server).path.read_bytes() == CONTENT
    assert files(tmp_path) == [PLACE]


def test_a_process_that_waits_takes_over_when_the_other_is_killed(
    server: ConditionsServer, downloads: Downloads, tmp_path: Path
) -> None:
    server.steps["file"] = [stall, answer(CONTENT)]
    first = downloads.begin()
    wait_for_content(tmp_path)
    second = downloads.begin()
    while sum(server.list_path in path for path in server.asked) < 2:
        assert second.poll() is None
        time.sleep(0.005)
    first.kill()
    output, said = second.communicate(timeout=60)
    assert (output, said, second.returncode) == ("False\n", "", 0)
    assert files(tmp_path) == [PLACE]
