"""Threads: more than a job's CPUs, and more than can be started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.errors import ThreadLimitError
from pxdbg_runtime.limits import threads
from pxdbg_runtime.limits.threads import JobCpus, count_job_cpus, prepare_threads, report_thread_limit
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def set_cpus(patched: pytest.MonkeyPatch, machine: int | None, affinity: int, quota: float | None) -> None:
    patched.setattr(os, "cpu_count", lambda: machine)
    patched.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    patched.setattr(threads, "read_cpu_quota", lambda: quota)


@pytest.mark.parametrize(
    ("machine", "affinity", "quota", "expected"),
    [
        (8, 8, None, JobCpus(count=8, limited_by="this machine has no more")),
        (8, 1, None, JobCpus(count=1, limited_by="its scheduling affinity")),
        (8, 4, 1.5, JobCpus(count=2, limited_by="its cgroup's quota of 1.5")),
        (8, 4, 0.1, JobCpus(count=1, limited_by="its cgroup's quota of 0.1")),
        (None, 4, None, JobCpus(count=1, limited_by="this machine has no more")),
    ],
)
def test_a_job_has_as_many_cpus_as_the_least_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, machine: int | None, affinity: int, quota: float | None, expected: JobCpus
) -> None:
    set_cpus(monkeypatch, machine, affinity, quota)
    assert count_job_cpus() == expected


@pytest.mark.parametrize(
    ("nintra", "ninter", "affinity", "warning"),
    [
        (1, 1, 1, ""),
        (4, 1, 4, ""),
        (2, 3, 4, ""),
        (32, 1, 1, "nintra=32 and ninter=1 make 32 threads, but this job has 1 CPU (its scheduling affinity): "),
        (3, 3, 4, "nintra=3 and ninter=3 make 5 threads, but this job has 4 CPUs (its scheduling affinity): "),
    ],
)
def test_more_threads_than_cpus_are_a_warning_with_the_numbers(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nintra: int,
    ninter: int,
    affinity: int,
    warning: str,
) -> None:
    set_cpus(monkeypatch, 8, affinity, None)
    prepare_threads(nintra, ninter)
    logged = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(logged) == int(bool(warning))
    assert all(
        line.startswith(warning) and line.endswith(f"ask for nintra={affinity} and ninter=1.") for line in logged
    )


def refuse_from(number: int, patched: pytest.MonkeyPatch) -> None:
    """Let the system refuse threads from one on."""
    start: Callable[[threading.Thread], None] = threading.Thread.start
    n_started = 0

    def start_few(thread: threading.Thread) -> None:
        nonlocal n_started
        if n_started >= number:
            message = "can't start new thread"
            raise RuntimeError(message)
        n_started += 1
        start(thread)

    patched.setattr(threading.Thread, "start", start_few)


def test_threads_that_cannot_be_started_are_an_error_and_those_started_end(monkeypatch: pytest.MonkeyPatch) -> None:
    n_before = threading.active_count()
    refuse_from(3, monkeypatch)
    message = (
        r"^Needed 6 more threads, but the system started 3: .*\(ulimit -u\).*: Raise it|"
        r"ask for fewer threads \(nintra, ninter\)\.$"
    )
    with pytest.raises(ThreadLimitError, match=message) as caught:
        prepare_threads(4, 1)
    assert (caught.value.asked, caught.value.started) == (6, 3)
    assert threading.active_count() == n_before


def raise_runtime_error(message: str) -> None:
    with report_thread_limit():
        raise RuntimeError(message)


def test_a_thread_refused_later_is_an_error_of_ours_and_other_errors_pass() -> None:
    with pytest.raises(ThreadLimitError, match=r"^Needed 1 more thread, but the system started 0"):
        raise_runtime_error("can't start new thread")
    with pytest.raises(RuntimeError, match=r"^something else$") as caught:
        raise_runtime_error("something else")
    assert not isinstance(caught.value, ThreadLimitError)


def limit_processes(n_processes: int, *command: str) -> list[str]:
    """Write a command that runs with a limit on the user's processes, which root has to give up its rights for."""
    if os.geteuid() != 0:
        return ["prlimit", f"--nproc={n_processes}", *command]
    kept = "-all,+dac_override,+dac_read_search"  # else another user cannot read an interpreter in root's home
    rights = [word for option in ("--inh-caps", "--ambient-caps", "--bounding-set") for word in (option, kept)]
    as_nobody = ["--reuid", "54321", "--clear-groups", *rights]
    return ["setpriv", *as_nobody, "prlimit", f"--nproc={n_processes}", *command]


@pytest.mark.skipif(
    not (shutil.which("prlimit") and shutil.which("setpriv")), reason="needs util-linux's prlimit and setpriv"
)
@pytest.mark.parametrize(
    ("arguments", "n_processes"), [(["--output", "a.npz"], 1), (["--output", "a.npz", "--nintra", "4"], 4)]
)
def test_a_job_that_may_start_no_threads_ends_with_a_sentence(
    tmp_path: Path, arguments: list[str], n_processes: int
) -> None:
    write_graph(tmp_path / "tiny.onnx", latent_model(), LATENT_CARD)
    tmp_path.chmod(0o777)
    n_allowed = n_processes if os.geteuid() == 0 else 1  # a user who has other processes has no exact number
    program = "from pxdbg_runtime.command_line import app; app()"
    command = [sys.executable, "-c", program, "generate", "--model", "tiny.onnx", *arguments]
    environment = {**os.environ, "HOME": "/nonexistent", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        limit_processes(n_allowed, *command), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    if done.returncode == 127 or "setpriv: " in done.stderr:
        pytest.skip(f"this machine does not let rights be given up: {done.stderr}")
    assert done.returncode == 1, done.stderr
    sentence, section = done.stderr.strip().splitlines()[-2:]
    assert re.match(r"Error: Needed \d more threads, but the system started \d: this job's limit", sentence)
    assert section == "See docs/running.md#grid-slots"
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx"]
