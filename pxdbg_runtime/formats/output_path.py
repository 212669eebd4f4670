"""Checks of output paths: resolve links, and refuse what a new file cannot replace."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from pxdbg_runtime.errors import OutputError

__all__ = ["check_replaceable", "choose_mode", "copy_mode", "create_folder", "resolve_output"]

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NOT_A_FILE: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def create_folder(folder: Path) -> None:
    """Create a folder and those above it, unless they exist; raises `OutputError` if that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(folder, f"The folder {folder} cannot be made: {error.strerror or error}.") from None


def resolve_output(target: Path) -> Path:
    """Resolve links to the path of the file itself, which need not exist.

    Raises
    ------
    OutputError
        If its folder does not exist, or the target is a folder, a pipe, a device or a socket.
    OSError
        If its name is too long, links form a loop, or a folder may not be entered.
    """
    place = Path(os.path.realpath(target))
    if not os.path.isdir(place.parent):  # noqa: PTH112  # Path raises for a name that is too long
        with suppress(FileNotFoundError):
            os.stat(f"{place.parent}{os.sep}")  # noqa: PTH116  # raises any other reason
        folder = place.parent if target.is_symlink() else target.parent
        raise OutputError(target, f"{target} cannot be written: the folder {folder} does not exist.")
    try:
        status = os.stat(target)  # noqa: PTH116  # raises for links that form a loop
    except FileNotFoundError:
        return place
    kind = _NOT_A_FILE.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        raise OutputError(target, f"{target} is {kind}: expected the name of a file to write.")
    return place


def check_replaceable(target: Path, place: Path) -> None:
    """Check that a new file can replace an existing one.

    Raises
    ------
    OutputError
        If it is a mount point, or another user's file in a sticky folder.
    OSError
        If it is immutable or on a read-only disk.
    """
    try:
        status = place.stat()
    except FileNotFoundError:
        return
    if _is_mount_point(place):
        raise OutputError(target, f"{target} cannot be replaced: it is a mount point. Write to another file.")
    folder = place.parent.stat()
    may_replace = not hasattr(os, "geteuid") or os.geteuid() in {0, status.st_uid, folder.st_uid}
    if folder.st_mode & stat.S_ISVTX and not may_replace:
        message = f"{target} cannot be replaced: it is another user's file in a sticky folder. Write to another file."
        raise OutputError(target, message)
    try:
        os.close(os.open(place, os.O_WRONLY))
    except OSError as error:
        # A file without write permission can be replaced; one that is immutable, or on a read-only disk, cannot.
        if error.errno in {errno.EPERM, errno.EROFS}:
            raise


def _is_mount_point(place: Path) -> bool:
    """Tell whether something is mounted on a file; false where the system has no list of mounts (not Linux)."""
    try:
        mounts = _MOUNTS.read_bytes()
    except OSError:
        return False
    escaped = re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(place))
    return any(fields[4:5] == [escaped] for fields in map(bytes.split, mounts.splitlines()))


def choose_mode(place: Path) -> int:
    """Choose the mode of the temporary file: private if it replaces a file, else that of the umask."""
    return stat.S_IRUSR | stat.S_IWUSR if place.exists() else 0o666


def copy_mode(place: Path, partial: Path) -> None:
    """Copy mode and group of the old file to the new one."""
    try:
        old = place.stat()
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if hasattr(os, "chown") and partial.stat().st_gid != old.st_gid:
        try:
            os.chown(partial, -1, old.st_gid)
        except OSError:
            # The group is another one, so it gets no more rights than all other users.
            mode = mode & ~stat.S_IRWXG | (mode & stat.S_IRWXO) << 3
    with suppress(OSError):  # the disk has no modes
        partial.chmod(mode)
