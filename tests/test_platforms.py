"""The runtime without what Linux alone, or not every system, has."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from pathlib import Path

# Other packages are imported before: they may take what this Python was built with. The standard library's modules may
# too.
SCRIPT = r"""
import asyncio, concurrent.futures, ctypes, logging, mmap, multiprocessing, os, platform, signal, subprocess, sys, tempfile
import matplotlib.backends.backend_agg, matplotlib.pyplot, numba, numpy, onnxruntime, platformdirs, pyarrow.parquet
import rich.progress, typer.testing

ABSENT = {
    signal: ["SIGHUP", "SIGXCPU", "SIGXFSZ", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGKILL", "SIGCHLD", "SIGPIPE", "SIGCONT",
             "SIGSTOP", "SIGTSTP", "SIGQUIT", "pthread_sigmask", "pthread_kill", "sigwait", "sigtimedwait", "alarm",
             "setitimer", "siginterrupt", "sigpending"],
    os: ["sched_getaffinity", "sched_setaffinity", "fork", "forkpty", "register_at_fork", "geteuid", "getuid", "getegid",
         "getgid", "getgroups", "getpgid", "setsid", "killpg", "uname", "sysconf", "fchmod", "chown", "fchown", "lchown",
         "statvfs", "fstatvfs", "getloadavg", "mkfifo", "nice", "getpriority", "posix_fallocate", "posix_fadvise", "O_NOFOLLOW",
         "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "openat", "getxattr", "setxattr", "sendfile", "wait4", "waitid",
         "copy_file_range", "memfd_create", "pidfd_open", "sync", "fdatasync"],
    mmap: ["MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_SHARED", "PROT_READ", "PROT_WRITE"],
}
for module, names in ABSENT.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("resource", "fcntl", "pwd", "grp", "termios", "posix_ipc", "syslog"):
    sys.modules[name] = None

def refuse(event, arguments):
    path = arguments[0] if event == "open" else None
    if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "there is no such file on this system", path)
sys.addaudithook(refuse)

from pxdbg_runtime import Generator
from pxdbg_runtime.limits.address_space import read_address_space_limit
from pxdbg_runtime.command_line import app
from pxdbg_runtime.limits.threads import count_job_cpus, read_process_limit

assert read_address_space_limit() is None
assert read_process_limit() == float("inf")
assert count_job_cpus().count == (os.cpu_count() or 1)
platform.system = lambda: "Plan 9"
for command in (
    "generate --model tiny.onnx --seed 7 --min-charge 250 --output a.parquet",
    "generate --model tiny.onnx --seed 7 --min-charge 250 --output a.npz --nintra 2",
    "show a.npz",
    "show tiny.onnx",
    "plot a.parquet --output a.png",
    "doctor tiny.onnx --quick",
    "providers",
    "--version",
):
    result = typer.testing.CliRunner().invoke(app, command.split())
    if result.exit_code:
        print(command, "ended with", result.exit_code, repr(result.exception), result.output)
        raise SystemExit(1)
import export.conditions.cache
import benchmarks.environment, benchmarks.fresh_process
with benchmarks.environment.use_one_core():
    assert benchmarks.environment.count_cores() >= 1
print(sorted(path for path in os.listdir() if path.startswith("a.")), len(Generator("tiny.onnx", seed=7).generate(0)) > 0)
"""


@pytest.mark.slow
def test_the_runtime_needs_nothing_that_linux_alone_has(tmp_path: Path) -> None:
    write_graph(tmp_path / "tiny.onnx", latent_model(), LATENT_CARD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "['a.npz', 'a.parquet', 'a.png'] True"
