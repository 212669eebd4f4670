"""Limits on threads: the CPUs of a job, and whether the system starts as many threads as needed."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.errors import ThreadLimitError
from pxdbg_runtime.limits.cgroups import read_cpu_quota

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "JobCpus",
    "check_thread_count",
    "count_job_cpus",
    "count_startable_threads",
    "prepare_threads",
    "read_process_limit",
    "report_thread_limit",
    "require_threads",
]

_MAX_THREADS: Final = 4096
"""More than any machine has cores; ONNX Runtime would try to start as many as requested."""
_SPARE_THREADS: Final = 3
"""One computes images, one draws a progress bar, one for threads that libraries start."""
_REFUSED: Final = "can't start new thread"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JobCpus:
    """Number of CPUs that a job may use at a time.

    Attributes
    ----------
    count : int
        1 or more.
    limited_by : str
        What limits them, in words.
    """

    count: int
    limited_by: str


def check_thread_count(argument: str, count: object) -> int:
    """Return a valid number of threads for ONNX Runtime.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is not an integer from 1 to 4096.
    """
    return check_integer(argument, count, 1, _MAX_THREADS, unit="threads")


def count_job_cpus() -> JobCpus:
    """Count the CPUs that this process may use, by the machine, its scheduling affinity and its cgroup's quota."""
    machine = JobCpus(count=os.cpu_count() or 1, limited_by="this machine has no more")
    candidates = [machine]
    if hasattr(os, "sched_getaffinity"):  # Linux
        candidates.append(JobCpus(count=len(os.sched_getaffinity(0)), limited_by="its scheduling affinity"))
    quota = read_cpu_quota()
    if quota is not None:
        candidates.append(JobCpus(count=max(math.ceil(quota), 1), limited_by=f"its cgroup's quota of {quota:g}"))
    return min(candidates, key=lambda each: each.count)


def prepare_threads(nintra: int, ninter: int) -> None:
    """Check that the threads of a session can be started, and warn if they are more than the job's CPUs.

    If the system refuses a thread, ONNX Runtime waits for it for ever. So as many threads are started and ended here
    first.

    Parameters
    ----------
    nintra, ninter : int
        Threads within an operator, and operators at a time.

    Raises
    ------
    ThreadLimitError
        If the system starts fewer.
    """
    n_threads = nintra + ninter - 1
    cpus = count_job_cpus()
    if n_threads > cpus.count:
        _log.warning(
            "nintra=%d and ninter=%d make %d threads, but this job has %s (%s): threads that wait for a CPU make it "
            "slower, often many times; ask for nintra=%d and ninter=1.",
            nintra,
            ninter,
            n_threads,
            "1 CPU" if cpus.count == 1 else f"{cpus.count} CPUs",
            cpus.limited_by,
            cpus.count,
        )
    require_threads(n_threads - 1 + _SPARE_THREADS)


def require_threads(wanted: int) -> None:
    """Check that the system starts more threads.

    Raises
    ------
    ThreadLimitError
        If the system starts fewer.
    """
    n_started = count_startable_threads(wanted)
    if n_started < wanted:
        raise _describe_thread_limit(wanted, n_started)


def read_process_limit() -> float:
    """Read how many processes and threads the user may have (ulimit -u); infinity if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def count_startable_threads(wanted: int) -> int:
    """Start idle threads up to a number, end them, and return how many the system started."""
    released = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=released.wait, daemon=True)
            thread.start()
            started.append(thread)
    except (RuntimeError, MemoryError):  # Python raises either if the system refuses a thread
        pass
    finally:
        released.set()
        for thread in started:
            thread.join()
    return len(started)


@contextlib.contextmanager
def report_thread_limit() -> Iterator[None]:
    """Turn Python's error for a refused thread into `ThreadLimitError`.

    Raises
    ------
    ThreadLimitError
        If the system refused a thread.
    """
    try:
        yield
    except RuntimeError as error:
        if _REFUSED not in str(error):
            raise
        raise _describe_thread_limit(1, 0) from error


def _describe_thread_limit(wanted: int, n_started: int) -> ThreadLimitError:
    message = (
        f"Needed {wanted} more {'thread' if wanted == 1 else 'threads'}, but the system started {n_started}: "
        "this job's limit on processes and threads (ulimit -u), on its address space (ulimit -v), or that of its "
        "cgroup (pids.max) is reached. Raise it"
    )
    message += ", or ask for fewer threads (nintra, ninter)." if wanted > 1 + _SPARE_THREADS else "."
    return ThreadLimitError(wanted, n_started, message)
