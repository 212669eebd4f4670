"""Locks by which processes agree on who makes a partition; the lock of a process that is killed opens by itself."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from filelock import lock_descriptor

from pxdbg_runtime.formats.atomic_write import report_file_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["hold_lock", "is_held"]

_TRIES: Final = 5
_PAUSE_S: Final = 0.02
"""`is_held` holds a lock for an instant."""


@contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Hold a lock, without waiting for its holder to end.

    The lock file is removed at the end. Where the disk has no locks, several processes may believe that they hold it:
    they then do the same work twice, and write the same bytes.

    Parameters
    ----------
    path : Path
        The lock file.

    Yields
    ------
    bool
        Whether this process holds the lock, and no other.

    Raises
    ------
    OutputError
        If the lock file cannot be created.
    """
    with report_file_errors(path):
        descriptor = _acquire(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with suppress(OSError):  # Windows does not remove open files; the next holder removes it
                path.unlink(missing_ok=True)
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock.

    False where the disk has no locks, and on NFS also for a user who cannot write to the lock file.
    """
    try:
        descriptor = _open_for_probe(path)
    except OSError:
        return False
    try:
        return not lock_descriptor(descriptor, blocking=False)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _open_for_probe(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)  # NFS locks no file that is open for reading alone
    except OSError:  # it is another user's, or on a disk that is mounted for reading alone
        return os.open(path, os.O_RDONLY)


def _acquire(path: Path) -> int | None:
    """Open and lock the file; None if another process holds the lock."""
    n_tries = 0
    while n_tries < _TRIES:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_locked = lock_descriptor(descriptor, blocking=False)
        except OSError:  # the disk has no locks
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # A holder removes the file before it lets go: the lock counts only on the file that has the name now.
        if is_locked and _is_same_file(descriptor, path):
            return descriptor
        os.close(descriptor)
        if not is_locked:
            n_tries += 1
            time.sleep(_PAUSE_S)
    return None


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
