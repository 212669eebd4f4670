"""Campaigns that are killed at random moments: the same command finishes, with the files of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pytest

from pxdbg_runtime.campaigns import find_work
from tests.campaigns import make_parts, plan_campaign, read_parts

if TYPE_CHECKING:
    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
N_EVENTS: Final = 12
LONGEST_S: Final = 600.0
Victim = Literal["campaign", "worker", "scheduler"]


def start_python(*arguments: str | Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def start_run(campaign: Campaign, *options: str) -> subprocess.Popen[bytes]:
    return start_python("pxdbg_runtime", "campaign", "run", campaign.folder, *options)


class Cluster:
    """A scheduler and its two workers, each in a process of its own, whose messages are dropped."""

    def __init__(self, port: int, folder: Path) -> None:
        self.address = f"tcp://127.0.0.1:{port}"
        place = "--host", "127.0.0.1", "--no-dashboard"
        self.scheduler = self._start("scheduler", "--port", str(port), *place)
        # A folder for each: a worker removes those of others that it takes for dead.
        self.workers = [
            self._start(
                "worker", self.address, "--nthreads", "1", "--no-nanny", "--local-directory", folder / name, *place
            )
            for name in "ab"
        ]

    def close(self) -> None:
        for process in (self.scheduler, *self.workers):
            process.kill()
            process.wait()

    @staticmethod
    def _start(kind: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def run_on_cluster(campaign: Campaign, folder: Path, delay_s: float | None) -> None:
    """Run on a cluster; after a while kill its scheduler, and start another one with other workers in its place."""
    port = find_port()
    with ExitStack() as clusters:
        clusters.callback((first := Cluster(port, folder / "first")).close)
        with start_run(campaign, "--scheduler", first.address) as run:
            with suppress(subprocess.TimeoutExpired):
                run.communicate(timeout=delay_s)
            if run.returncode is None:
                first.scheduler.kill()
                first.scheduler.wait()
                clusters.callback(Cluster(port, folder / "second").close)
            _, stderr = run.communicate(timeout=LONGEST_S)
    assert run.returncode == 0, stderr.decode()


def list_children(process: int) -> list[int]:
    """List the processes that a process started, and those that they started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            number, parent = path.parent.name, path.read_text().rpartition(")")[2].split()[1]
            found.append((int(number), int(parent)))
    waiting, children = [process], []
    while waiting:
        each = waiting.pop()
        below = [number for number, parent in found if parent == each]
        children += below
        waiting += below
    return children


def kill_at(campaign: Campaign, n_workers: int, delay_s: float, victim: Victim, rng: random.Random) -> None:
    """Start a run and kill it, or one of its processes, after a while; a run that goes on ends by itself."""
    with start_run(campaign, "--workers", str(n_workers)) as run:
        with suppress(subprocess.TimeoutExpired):
            run.communicate(timeout=delay_s)
        if victim == "campaign":
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
        else:
            children = list_children(run.pid)
            with suppress(ProcessLookupError):
                if children:
                    os.kill(rng.choice(children), signal.SIGKILL)
        run.communicate(timeout=LONGEST_S)


def require_survival(
    graph: GraphFile, folder: Path, *, n_kills: int, n_workers: int, victim: Victim, seed: int
) -> None:
    rng = random.Random(seed)
    undisturbed = plan_campaign(folder / "undisturbed", graph, events=N_EVENTS, events_per_part=2)
    start = time.monotonic()
    if victim == "scheduler":
        run_on_cluster(undisturbed, folder, None)
    else:
        with start_run(undisturbed, "--workers", str(n_workers)) as run:
            run.communicate(timeout=LONGEST_S)
    duration_s = time.monotonic() - start
    expected = read_parts(undisturbed)
    assert len(expected) == N_EVENTS // 2
    killed = plan_campaign(folder / "killed", graph, events=N_EVENTS, events_per_part=2)
    for _ in range(n_kills):
        if find_work(killed, compare_hash=True) == ([], []):  # it finished before its time: lose a partition again
            part = rng.randrange(killed.plan.n_parts)
            killed.digits_path(part).unlink()
            killed.record_path(part).unlink()
        if victim == "scheduler":
            run_on_cluster(killed, folder, rng.uniform(0, duration_s))
        else:
            kill_at(killed, n_workers, rng.uniform(0, duration_s), victim, rng)
        present = read_parts(killed)
        assert present == {name: expected[name] for name in present}  # whole files alone have their names
    make_parts(killed, find_work(killed, compare_hash=True)[0])
    assert read_parts(killed) == expected
    assert find_work(killed, compare_hash=True) == ([], [])
    assert not [path.name for path in killed.folder.iterdir() if path.name.endswith(".partial")]


@pytest.mark.slow
def test_a_campaign_that_is_killed_some_times(latent_graph: GraphFile, tmp_path: Path) -> None:
    require_survival(latent_graph, tmp_path, n_kills=4, n_workers=1, victim="campaign", seed=1)


@pytest.mark.exhaustive
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize(("n_workers", "victim"), [(1, "campaign"), (2, "campaign"), (2, "worker"), (2, "scheduler")])
def test_a_campaign_that_is_killed_at_25_moments(
    n_workers: int, victim: Victim, latent_graph: GraphFile, tmp_path: Path
) -> None:
    """With two workers the processes of a campaign are its scheduler, in the campaign itself, nannies and workers.

    A scheduler of its own is started again at once, and the run goes on with its new workers.
    """
    require_survival(latent_graph, tmp_path, n_kills=25, n_workers=n_workers, victim=victim, seed=2)
