"""Files appear whole or not at all: written beside their target, then renamed.

A temporary file is named after its target and locked while its process lives. One that a killed process left behind is
removed by the next run that writes the same target.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import OutputError, PxdbgError
from pxdbg_runtime.formats.file_locks import lock, machine_digits
from pxdbg_runtime.formats.output_path import check_replaceable, choose_mode, copy_mode, resolve_output

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["PartialFile", "atomic_write", "check_target", "open_partial", "record_writes", "report_file_errors"]

_FIRST_EVENT_BYTES: Final = 1_000_000
"""What an event takes at most in either format."""
_OTHER_MACHINE_S: Final = 7 * 24 * 3600
"""A file that another machine left, whose locks may not reach this one, is a leftover after this time."""
_NAME_MAX: Final = 255
_writes: ContextVar[list[PartialFile] | None] = ContextVar("_writes", default=None)


@dataclass(kw_only=True, eq=False)
class PartialFile:
    """A file that is being written, for whoever must know how it ended.

    Attributes
    ----------
    target : Path
        Where it shall appear, as it was asked for.
    path : Path or None
        The temporary file beside it; None before it is made.
    identity : tuple of int or None
        Device and inode, from the moment it is whole.
    """

    target: Path
    path: Path | None = None
    identity: tuple[int, int] | None = None

    def remove(self) -> None:
        """Remove the temporary file, if it is there."""
        # Where it could not be made it cannot be removed, and the reason is on its way already.
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def is_in_place(self) -> bool:
        """Whether the target is this file."""
        with suppress(OSError):
            return self.identity is not None and _identity(self.target) == self.identity
        return False


@contextmanager
def record_writes() -> Iterator[list[PartialFile]]:
    """Give a list that gets an entry for each file whose writing begins in the block."""
    writes: list[PartialFile] = []
    token = _writes.set(writes)
    try:
        yield writes
    finally:
        _writes.reset(token)


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Give a new path beside a target; on success it takes the target's place, on failure it is removed.

    For blocks that do nothing but write the file: an `OSError` in it is one of the file. See `open_partial` for others.

    Parameters
    ----------
    target : Path
        Where the file shall be. See `open_partial`.

    Yields
    ------
    Path
        An empty file that the caller overwrites.

    Raises
    ------
    OutputError
        If the file cannot be written: no such folder, no permission, no space left.
    """
    with open_partial(target) as partial, report_file_errors(target):
        yield partial


@contextmanager
def open_partial(target: Path) -> Iterator[Path]:
    """Give a new path beside a target, for blocks that do more than write: their errors pass as they are.

    Parameters
    ----------
    target : Path
        Where the file shall be. An existing file stays until the new one is whole, which gets its mode and, where
        that is possible, its group. A symbolic link stays, and the file that it points to is written. Another name
        of the same file (a hard link) keeps the old content.

    Yields
    ------
    Path
        An empty file that the caller overwrites, within `report_file_errors`.

    Raises
    ------
    OutputError
        If the file cannot be made or cannot take the target's place.
    """
    with report_file_errors(target):
        place = resolve_output(target)
        _remove_leftovers(place)
        mode = choose_mode(place)
    partial = _record(target)
    descriptor = -1
    try:
        with report_file_errors(target):
            while descriptor < 0:
                # Here first, so that whatever interrupts the next line finds the file to remove.
                partial.path = path = place.with_name(_partial_name(place))
                descriptor = _create(path, mode)
        yield path
        with report_file_errors(target):
            _flush(path)
            copy_mode(place, path)
            partial.identity = _identity(path)
            if os.name == "nt":  # which does not rename what is open
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
        message = f"{target} cannot be written: {error.strerror or error}."
        raise OutputError(target, message) from error


def check_target(target: Path, *, room_bytes: int = _FIRST_EVENT_BYTES) -> None:
    """Find out before the work whether its result will have a place: by writing a file there, which is removed.

    Parameters
    ----------
    target : Path
    room_bytes : int
        What must fit on its disk.

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
        probe = _record(target)
        probe.path = place.with_name(_partial_name(place))
        try:
            with probe.path.open("xb") as file:
                file.write(bytes(room_bytes))
        finally:
            probe.remove()


def _record(target: Path) -> PartialFile:
    partial = PartialFile(target=target)
    if (writes := _writes.get()) is not None:
        writes.append(partial)
    return partial


def _partial_stem(place: Path) -> str:
    """Name the temporary files of a target after it, shortened where the name is as long as a name can be."""
    room = _longest_name(place.parent) - len(f"..{'0' * 16}.partial")
    if len(os.fsencode(place.name)) <= room:
        return place.name
    short = place.name
    digest = hashlib.sha256(os.fsencode(place.name)).hexdigest()[:8]
    while len(os.fsencode(short)) > room - len(digest) - 1:
        short = short[:-1]
    return f"{short}~{digest}"


def _longest_name(folder: Path) -> int:
    """Bytes that a file's name may have: fewer on some disks, such as encrypted ones."""
    try:
        return min(os.pathconf(folder, "PC_NAME_MAX"), _NAME_MAX)
    except (AttributeError, OSError, ValueError):  # not on Windows
        return _NAME_MAX


def _partial_name(place: Path) -> str:
    return f".{_partial_stem(place)}.{machine_digits()}{secrets.token_hex(4)}.partial"


def _remove_leftovers(place: Path) -> None:
    """Remove the temporary files of this target whose processes have died."""
    pattern = re.compile(rf"\.{re.escape(_partial_stem(place))}\.([0-9a-f]{{8}})[0-9a-f]{{8}}\.partial")
    try:
        names = os.listdir(place.parent)  # noqa: PTH208  # names alone, which may be many
    except OSError:  # a folder may be writable and not readable
        return
    for name in names:
        found = pattern.fullmatch(name)
        if found is not None:
            with suppress(OSError):
                _remove_if_dead(place.with_name(name), is_of_this_machine=found[1] == machine_digits())


def _remove_if_dead(leftover: Path, *, is_of_this_machine: bool) -> None:
    if not is_of_this_machine and time.time() - leftover.lstat().st_mtime < _OTHER_MACHINE_S:
        return
    if os.name == "nt":
        leftover.unlink()  # fails while a process has it open
        return
    descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if lock(descriptor):  # it raises while the process that writes the file lives, and the caller goes on
            leftover.unlink()
    finally:
        os.close(descriptor)


def _create(partial: Path, mode: int) -> int:
    """Make a file and lock it; gives -1 if another process took it for a leftover just now."""
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)
    try:
        lock(descriptor)
        if _identity(partial) == _identity(descriptor):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # the other process has locked it and is about to remove it, or has removed it
    os.close(descriptor)
    return -1


def _identity(file: Path | int) -> tuple[int, int]:
    status = os.stat(file)  # noqa: PTH116  # of a path or a descriptor
    return status.st_dev, status.st_ino


def _flush(partial: Path) -> None:
    with partial.open("rb") as file:
        os.fsync(file.fileno())
