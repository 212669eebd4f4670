"""Whether a path is a file with content of its own: to open a named pipe waits for ever, and a device has no end."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_regular_file"]


def check_regular_file(path: Path) -> None:
    """Check that a path names a regular file, before it is opened.

    Raises
    ------
    OSError
        If it does not; its `strerror` says what it is, or that there is nothing.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a pipe, a device or a socket, expected a regular file")
