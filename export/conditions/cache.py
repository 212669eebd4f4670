"""The local cache of payloads, in the layout of basf2, so that each program uses what the other has downloaded.

A payload is at ``<folder>/<first two hexadecimal digits of its MD5>/<name>_r<revision>.root``. One process at a time
downloads it, under a lock; the file appears under its name when it is complete.
"""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock, Timeout

from export.errors import ConditionsError
from pxdbg_runtime.basf2.payloads import payload_path
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats.atomic_write import open_partial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from export.conditions.limits import Limits
    from export.conditions.validity import PayloadEntry

__all__ = ["default_cache", "fetch_into_cache"]


def default_cache() -> Path:
    """Return the folder that basf2 uses by default."""
    return Path(tempfile.gettempdir()) / "basf2-conditions"


def fetch_into_cache(
    folder: Path, entry: PayloadEntry, download: Callable[[BinaryIO], None], limits: Limits
) -> tuple[Path, bool]:
    """Return the file of a payload; download it if the cache has no file with its MD5.

    Parameters
    ----------
    folder : Path
        The cache; created if it does not exist.
    entry : PayloadEntry
    download : callable
        Writes the payload into an empty file and checks its MD5.
    limits : Limits

    Returns
    -------
    path : Path
        A file with the MD5 of the payload.
    was_cached : bool
        Whether this process downloaded nothing.

    Raises
    ------
    OutputError
        If the cache cannot be written to.
    ConditionsError
        If another process holds the lock of the payload for too long, or `download` raises it.
    """
    target = payload_path(folder, entry.name, entry.revision, entry.md5)
    try:
        if _has_md5(target, entry.md5):
            return target, True
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target, limits):
            if _has_md5(target, entry.md5):
                return target, True
            if target.is_symlink():  # in a shared folder, a link could lead to any file of this user
                target.unlink()
            with open_partial(target) as partial, partial.open("wb") as file:
                download(file)
            return target, False
    except OSError as error:
        message = (
            f"The cache {folder} cannot hold {target.name}: {error.strerror or error}. "
            "Choose another folder with --cache."
        )
        raise OutputError(target, message) from None


def _has_md5(path: Path, md5: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == md5
    except FileNotFoundError:
        return False


@contextmanager
def _lock(target: Path, limits: Limits) -> Iterator[None]:
    """Take the lock of a payload, which ends with the process that holds it."""
    lock_file = target.with_name(f".{target.name}.lock")
    lock = FileLock(lock_file, timeout=limits.lock_timeout_s, poll_interval=limits.lock_poll_s)
    try:
        lock.acquire()
    except Timeout:
        message = (
            f"Another process has been downloading {target} for {limits.lock_timeout_s:g} s: wait until it is done, "
            "end it, or choose another folder with --cache."
        )
        raise ConditionsError(message) from None
    try:
        yield
    finally:
        # Removed before it is released: a process that waits for it then creates a new one.
        with suppress(OSError):
            lock_file.unlink()
        lock.release()
