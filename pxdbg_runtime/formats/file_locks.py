"""Locks that die with the process that holds them, and which machine a process runs on."""

from __future__ import annotations

import functools
import hashlib
import platform
from pathlib import Path
from typing import Final

__all__ = ["lock", "machine_digits"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def lock(descriptor: int) -> bool:
    """Lock an open file for this process alone, until it is closed or the process ends; never waits.

    Returns
    -------
    bool
        False if the disk or the platform has no locks.

    Raises
    ------
    BlockingIOError
        If another process holds the lock.
    """
    try:
        import fcntl  # not on Windows, where a file that is open cannot be removed anyway

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True


@functools.cache
def machine_digits() -> str:
    """Give eight hexadecimal digits that are the same for all processes of this machine until it boots again."""
    try:
        name = _BOOT_ID.read_text(encoding="utf-8")  # containers of a machine share it, unlike their host names
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
