"""The local cache of payloads, in the layout of basf2, so that each program uses what the other has downloaded.

One process at a time downloads a payload, under a lock; the file appears under its name when it is complete. All users
share the cache, so its folders and files are writable to all, and the MD5 of a file is checked whenever it is used.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from filelock import FileLock, Timeout

from export.conditions.files import find_payload_file
from export.errors import ConditionsError
from pxdbg_runtime.basf2.payloads import payload_path
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats.atomic_write import open_partial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from export.conditions.limits import Limits
    from export.conditions.validity import PayloadEntry

__all__ = ["default_cache", "fetch_into_cache"]

_FOLDER_MODE: Final = 0o777
_FILE_MODE: Final = 0o666


def default_cache() -> Path:
    """Return the folder that basf2 uses by default."""
    return Path(tempfile.gettempdir()) / "basf2-conditions"


def fetch_into_cache(
    folder: Path, entry: PayloadEntry, download: Callable[[BinaryIO], str], limits: Limits
) -> tuple[Path, str | None]:
    """Return the file of a payload; download it if the cache has no file with its MD5.

    Parameters
    ----------
    folder : Path
        The cache; created if it does not exist.
    entry : PayloadEntry
    download : callable
        Writes the payload into an empty file, checks its MD5 and returns the URL that it came from.
    limits : Limits

    Returns
    -------
    path : Path
        A file with the MD5 of the payload.
    url : str or None
        URL that this process downloaded it from; None if it was in the cache.

    Raises
    ------
    OutputError
        If the cache cannot be written to.
    ConditionsError
        If another process holds the lock of the payload for too long, or `download` raises it.
    """
    target = payload_path(folder, entry.name, entry.revision, entry.md5)
    if found := find_payload_file(folder, entry):
        return found, None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _create_shared_folder(folder)
        _create_shared_folder(target.parent)
        with _lock(target, limits):
            if found := find_payload_file(folder, entry):
                return found, None
            target.unlink(missing_ok=True)  # a damaged file, whose mode would be kept, or a link to any file
            with open_partial(target) as partial, _open_unlinked(partial) as file:
                url = download(file)
                os.fchmod(file.fileno(), _FILE_MODE)
            return target, url
    except OSError as error:
        message = (
            f"The cache {folder} cannot hold {target.name}: {error.strerror or error}. "
            "Choose another folder with --cache."
        )
        raise OutputError(target, message) from None


def _create_shared_folder(folder: Path) -> None:
    """Create a folder that all users may write to, whatever the umask; leave one that exists."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)  # not what another user may have put in its place
    try:
        os.fchmod(descriptor, _FOLDER_MODE)
    finally:
        os.close(descriptor)


def _open_unlinked(partial: Path) -> BinaryIO:
    """Open a file for writing, but no link that another user may have put in its place."""
    return os.fdopen(os.open(partial, os.O_WRONLY | os.O_NOFOLLOW), "wb")


@contextmanager
def _lock(target: Path, limits: Limits) -> Iterator[None]:
    """Take the lock of a payload, which ends with the process that holds it."""
    lock_file = target.with_name(f".{target.name}.lock")
    lock = FileLock(lock_file, timeout=limits.lock_timeout_s, poll_interval=limits.lock_poll_s, mode=_FILE_MODE)
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
