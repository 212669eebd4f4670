"""Open regular files only: opening a named pipe may wait for ever, and a device may have no end."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

__all__ = ["open_regular"]


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes, without waiting.

    The check is on the open file and not on the path, which another process may replace at any time.

    Parameters
    ----------
    path : Path

    Returns
    -------
    BufferedReader
        The caller closes it.

    Raises
    ------
    OSError
        If it is not a regular file or cannot be opened; its `strerror` gives the reason.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115  # the caller closes it
    except PermissionError:
        if path.is_dir():  # Windows refuses to open a folder with this error
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        raise
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.EOPNOTSUPP}:  # a socket on Linux and on macOS, or an idle device
            raise _describe_irregular_file() from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise _describe_irregular_file()
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a pipe: regular files ignore the flag; Windows lacks it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _describe_irregular_file() -> OSError:
    return OSError(errno.EINVAL, "it is a pipe, a device or a socket, expected a regular file")
