"""The local cache of payloads, in basf2's own layout, so that each program uses what the other has downloaded.

A payload is at ``<folder>/<first two hexadecimal digits of its MD5>/<name>_r<revision>.root``. It is written into
a hidden file beside its place, which is locked against other processes and renamed when it is whole. A process that is
killed leaves that file without a lock, and the next one writes over it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from export.conditions.naming import payload_path
from export.errors import ConditionsError
from pxdbg_runtime.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from export.conditions.limits import Limits
    from export.conditions.validity import PayloadEntry

__all__ = ["default_cache", "stored"]


def default_cache() -> Path:
    """Give the folder that basf2 uses where nothing else is set."""
    return Path(tempfile.gettempdir()) / "basf2-conditions"


def stored(
    folder: Path, entry: PayloadEntry, download: Callable[[BinaryIO], None], limits: Limits
) -> tuple[Path, bool]:
    """Give the file of a payload; download it if the cache has no sound one.

    Parameters
    ----------
    folder : Path
        The cache; made if it is not there.
    entry : PayloadEntry
    download : callable
        Writes the payload into an empty file and checks its MD5; not called if the cache, or meanwhile another process, has it.
    limits : Limits

    Returns
    -------
    Path
        Of a file with the payload's MD5.
    bool
        Whether it was there already.

    Raises
    ------
    OutputError
        If the cache cannot be written to.
    ConditionsError
        If another process holds the payload's lock for too long, or whatever `download` raises.
    """
    target = payload_path(folder, entry.name, entry.revision, entry.md5)
    try:
        if _has_md5(target, entry.md5):
            return target, True
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with _locked(partial, limits) as file:
            is_there = _has_md5(target, entry.md5)
            if not is_there:
                file.truncate()
                download(file)
                file.flush()
                os.fsync(file.fileno())
                partial.replace(target)
            return target, is_there
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
def _locked(path: Path, limits: Limits) -> Iterator[BinaryIO]:
    """Open a file under a lock that one process at a time can have; it is removed unless the caller has renamed it."""
    with _opened_and_locked(path, limits) as file:
        try:
            yield file
        finally:
            # After a rename, the path may be another process's new file.
            if _is_at(path, file):
                path.unlink()


def _opened_and_locked(path: Path, limits: Limits) -> BinaryIO:
    end = time.monotonic() + limits.lock_timeout_s
    while True:
        # No symbolic link is followed: in a shared folder, one could lead to any file of this user.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        file = os.fdopen(descriptor, "r+b")
        try:
            _lock(file)
            # The process that had the lock may have renamed or removed the file since it was opened here.
            if _is_at(path, file):
                return file
        except BlockingIOError:
            if time.monotonic() > end:
                message = (
                    f"Another process has been downloading {path} for {limits.lock_timeout_s:g} s: wait until it is "
                    "done, end it, or choose another folder with --cache."
                )
                file.close()
                raise ConditionsError(message) from None
            time.sleep(limits.lock_poll_s)
        except OSError:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO) -> None:
    """Take a file's lock, or raise BlockingIOError.

    Without locks, on Windows, two processes may write one file. Its MD5 is checked before it is used, and it is then
    downloaded again.
    """
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
