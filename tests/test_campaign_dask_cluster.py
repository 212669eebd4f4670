"""Campaigns on real workers of Dask, which are stopped and killed: the files are those of one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.campaigns import find_work
from tests.campaigns import make_parts, plan_campaign, read_parts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime.campaigns import Campaign
    from pxdbg_runtime.model.graph_file import GraphFile

pytest.importorskip("distributed")


def pxdbg(*arguments: str) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a shell does."""
    command = [sys.executable, "-m", "pxdbg_runtime", *arguments]
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


@pytest.fixture(scope="module")
def reference_parts(latent_graph: GraphFile, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Make the files of a campaign in one process."""
    folder = tmp_path_factory.mktemp("reference") / "bg"
    reference = plan_campaign(folder, latent_graph, events=24, format_name="parquet")
    assert make_parts(reference) == {"made": 12}
    return read_parts(reference)


@pytest.fixture
def undisturbed(
    latent_graph: GraphFile, tmp_path: Path, reference_parts: dict[str, bytes]
) -> tuple[Campaign, dict[str, bytes]]:
    """Plan the same campaign anew."""
    return plan_campaign(tmp_path / "bg", latent_graph, events=24, format_name="parquet"), reference_parts


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.slow
def test_two_local_workers_are_stopped_and_one_process_goes_on(undisturbed: tuple[Campaign, dict[str, bytes]]) -> None:
    campaign, expected = undisturbed
    with pxdbg("campaign", "run", str(campaign.folder), "--workers", "2") as stopped:
        while len(read_parts(campaign)) < 2:
            assert stopped.poll() is None
            time.sleep(0.02)
        os.killpg(stopped.pid, signal.SIGINT)  # as a terminal does for Ctrl-C
        output, _ = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGINT
    assert "Traceback" not in output
    assert "12 partitions to make on 2 worker processes" in output
    assert re.search(r"stopped by SIGINT: \d+ of 12 partitions are complete; go on with pxdbg campaign run", output)
    made = set(read_parts(campaign))
    assert 2 <= len(made) < 12
    assert make_parts(campaign, find_work(campaign, compare_hash=True)[0]).keys() == {"made"}
    assert read_parts(campaign) == expected
    assert not [path for path in campaign.folder.iterdir() if path.name.startswith(".")]


@contextmanager
def dask(*arguments: str, ready: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a command of Dask, and wait for a line that matches; yields its first group."""
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    with subprocess.Popen(command, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            found = next(match for line in process.stderr if (match := re.search(ready, line)))
            yield process, found[1]
        finally:
            process.terminate()
            process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.slow
def test_a_scheduler_and_its_workers_make_the_files_of_one_process(
    undisturbed: tuple[Campaign, dict[str, bytes]], tmp_path: Path
) -> None:
    campaign, expected = undisturbed
    worker = "--nthreads", "1", "--no-dashboard", "--local-directory", str(tmp_path), "--memory-limit", "0"
    ready = r"Registered to: +(\S+)"
    with (
        dask("dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard", ready=r"at: +(tcp://\S+)") as (
            _,
            address,
        ),
        dask("dask_worker", address, *worker, "--no-nanny", ready=ready) as (victim, _),
        dask("dask_worker", address, *worker, "--no-nanny", ready=ready),
        pxdbg("campaign", "run", str(campaign.folder), "--scheduler", address) as run,
    ):
        while len(read_parts(campaign)) < 2:
            assert run.poll() is None
            time.sleep(0.02)
        victim.kill()
        try:
            output, _ = run.communicate(timeout=120)
        finally:
            run.kill()  # else a run that hangs would keep the test from failing
    assert run.returncode == 0, output
    assert read_parts(campaign) == expected
    assert not [path for path in campaign.folder.iterdir() if path.suffix == ".partial"]
    assert "12 partitions to make on the workers of tcp://" in output
