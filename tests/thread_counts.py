"""Count threads of any kind: `threading` does not know those of `_thread`."""

from __future__ import annotations

import _thread
import time

__all__ = ["count_threads", "has_at_most"]


def count_threads() -> int:
    """Count the threads that Python has started and that have not ended."""
    return _thread._count()


def has_at_most(n_threads: int, timeout_s: float = 10.0) -> bool:
    """Tell whether no more threads are left: a thread whose end is known may take a moment to end."""
    deadline = time.monotonic() + timeout_s
    while count_threads() > n_threads and time.monotonic() < deadline:
        time.sleep(0.001)
    return count_threads() <= n_threads
