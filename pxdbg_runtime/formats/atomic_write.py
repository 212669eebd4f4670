"""Write files atomically: beside their target, then renamed, so that a file is complete or absent.

A temporary file is named after its target, and locked while its process lives. The next run that writes the same target
removes the temporary files of killed processes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from filelock import lock_descriptor

from pxdbg_runtime.errors import OutputError, PxdbgError
from pxdbg_runtime.formats.output_path import check_replaceable, choose_mode, copy_mode, resolve_output

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PartialFile", "atomic_write", "check_target", "open_partial", "record_writes", "report_file_errors"]

_FIRST_EVENT_BYTES: Final = 1_000_000
"""Free space to ask for before the work: about one event in any format."""
_OTHER_MACHINE_S: Final = 7 * 24 * 3600
"""Age at which a temporary file of another machine, whose locks may not reach this one, counts as abandoned."""
_STEM_BYTES: Final = 80
"""Longest name of a target that its temporary files repeat: some disks allow less than 255 bytes."""
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_writes: ContextVar[list[PartialFile] | None] = ContextVar("_writes", default=None)


@dataclass(kw_only=True, eq=False)
class PartialFile:
    """A file that is being written.

    Attributes
    ----------
    target : Path
        Where it will appear, as the caller gave it.
    path : Path or None
        The temporary file beside it; None before it exists.
    identity : tuple of int or None
        Device and inode; None until the file is complete.
    """

    target: Path
    path: Path | None = None
    identity: tuple[int, int] | None = None

    def remove(self) -> None:
        """Remove the temporary file, if it exists."""
        # A file that could not be created cannot be removed, and that error is raised already.
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def is_in_place(self) -> bool:
        """Whether the target is this file."""
        with suppress(OSError):
            return self.identity is not None and _identify(self.target) == self.identity
        return False


@contextmanager
def record_writes() -> Iterator[list[PartialFile]]:
    """Yield a list that gets an entry for each file whose writing begins in the block."""
    writes: list[PartialFile] = []
    token = _writes.set(writes)
    try:
        yield writes
    finally:
        _writes.reset(token)


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yield a new file beside a target; on success it replaces the target, on failure it is removed.

    As `open_partial`, for blocks that only write the file: an `OSError` in the block becomes an `OutputError`.
    """
    with open_partial(target) as partial, report_file_errors(target):
        yield partial


@contextmanager
def open_partial(target: Path) -> Iterator[Path]:
    """Yield a new file beside a target, for blocks that do more than write; their errors pass unchanged.

    Parameters
    ----------
    target : Path
        An existing file stays until the new one is complete, which gets its mode and, where possible, its group. A
        symbolic link stays, and the file that it points to is written. Another name of the same file (a hard link)
        keeps the old content.

    Yields
    ------
    Path
        An empty file that the caller overwrites, within `report_file_errors`.

    Raises
    ------
    OutputError
        If the file cannot be created, or cannot replace the target.
    """
    with report_file_errors(target):
        place = resolve_output(target)
        _remove_leftovers(place)
        mode = choose_mode(place)
    partial = _start_record(target)
    descriptor = -1
    try:
        with report_file_errors(target):
            while descriptor < 0:
                # Stored first: if a signal interrupts the next line, `remove` knows the file.
                partial.path = path = place.with_name(_build_partial_name(place))
                descriptor = _create(path, mode)
        yield path
        with report_file_errors(target):
            _flush(path)
            copy_mode(place, path)
            partial.identity = _identify(path)
            if os.name == "nt":  # Windows does not rename open files
                os.close(descriptor)
                descriptor = -1
            path.replace(place)
    finally:
        partial.remove()
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def report_file_errors(target: Path) -> Iterator[None]:
    """Turn an `OSError` of a file's own operations into an `OutputError` that names the file."""
    try:
        yield
    except PxdbgError:
        raise
    except OSError as error:
        raise OutputError(target, f"{target} cannot be written: {error.strerror or error}.") from error


def check_target(target: Path, *, free_bytes: int = _FIRST_EVENT_BYTES) -> None:
    """Check before the work that its result can be written: write a file beside the target, and remove it.

    Parameters
    ----------
    target : Path
    free_bytes : int
        Free space that the disk must have.

    Raises
    ------
    OutputError
        If the folder does not exist or cannot be written to, its disk is full, or the target cannot be replaced: a
        folder, a device, a pipe, a mount point, another user's file in a sticky folder, links that form a loop.
    """
    with report_file_errors(target):
        place = resolve_output(target)
        check_replaceable(target, place)
        _remove_leftovers(place)
        probe = _start_record(target)
        probe.path = place.with_name(_build_partial_name(place))
        try:
            with probe.path.open("xb") as file:
                file.write(bytes(free_bytes))
        finally:
            probe.remove()


def _start_record(target: Path) -> PartialFile:
    partial = PartialFile(target=target)
    if (writes := _writes.get()) is not None:
        writes.append(partial)
    return partial


def _build_partial_stem(place: Path) -> str:
    """Name the temporary files of a target after it; a long name is cut, and its digest appended."""
    name = os.fsencode(place.name)
    if len(name) <= _STEM_BYTES:
        return place.name
    return f"{name[:_STEM_BYTES].decode(errors='ignore')}~{hashlib.sha256(name).hexdigest()[:8]}"


def _build_partial_name(place: Path) -> str:
    return f".{_build_partial_stem(place)}.{_identify_machine()}{secrets.token_hex(4)}.partial"


def _remove_leftovers(place: Path) -> None:
    """Remove the temporary files of this target whose processes have died."""
    pattern = re.compile(rf"\.{re.escape(_build_partial_stem(place))}\.([0-9a-f]{{8}})[0-9a-f]{{8}}\.partial")
    try:
        names = os.listdir(place.parent)  # noqa: PTH208  # names alone, which may be many
    except OSError:  # a folder may be writable and not readable
        return
    for name in names:
        found = pattern.fullmatch(name)
        if found is not None:
            with suppress(OSError):
                _remove_if_dead(place.with_name(name), is_of_this_machine=found[1] == _identify_machine())


def _remove_if_dead(leftover: Path, *, is_of_this_machine: bool) -> None:
    if not is_of_this_machine and time.time() - leftover.lstat().st_mtime < _OTHER_MACHINE_S:
        return
    if os.name == "nt":
        leftover.unlink()  # fails while a process has it open
        return
    descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW)
    try:
        # It raises where the disk has no locks, and the caller goes on.
        if lock_descriptor(descriptor, blocking=False):
            leftover.unlink()
    finally:
        os.close(descriptor)


def _create(partial: Path, mode: int) -> int:
    """Create and lock a file; returns its descriptor, or -1 if another process is removing it as a leftover."""
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
    with suppress(FileNotFoundError):
        if _lock(descriptor) and _identify(partial) == _identify(descriptor):
            return descriptor
    os.close(descriptor)
    return -1


def _lock(descriptor: int) -> bool:
    """Lock an open file until it is closed or the process ends; false if another process holds the lock."""
    if os.name == "nt":  # Windows does not remove open files, and its locks would keep this process from writing
        return True
    try:
        return lock_descriptor(descriptor, blocking=False)
    except OSError:  # the disk has no locks, so no process takes the file for a leftover
        return True


@functools.cache
def _identify_machine() -> str:
    """Return eight hexadecimal digits that all processes of this machine share until it boots again."""
    try:
        name = _BOOT_ID.read_text(encoding="utf-8")  # containers of a machine share it, unlike their host names
    except OSError:
        name = platform.node()
    return hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]


def _identify(file: Path | int) -> tuple[int, int]:
    status = os.stat(file)  # noqa: PTH116  # of a path or a descriptor
    return status.st_dev, status.st_ino


def _flush(partial: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
