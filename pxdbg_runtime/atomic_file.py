"""Files appear whole or not at all: written beside their target, then renamed."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pxdbg_runtime.errors import OutputError, PxdbgError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["written_whole"]


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Give a new path beside a target; on success it takes the target's place, on failure it is removed.

    Parameters
    ----------
    target : Path
        Where the file shall be. An existing file stays until the new one is whole.

    Yields
    ------
    Path
        An empty file that the caller overwrites.

    Raises
    ------
    OutputError
        If the file cannot be written: no such folder, no permission, no space left.
    """
    # Not made of the target's name, which may be as long as a name can be.
    partial = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        if target.is_dir():
            message = f"{target} is a folder: expected the name of a file to write."
            raise OutputError(target, message)
        partial.touch(exist_ok=False)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except PxdbgError:
        raise
    except OSError as error:
        message = f"{target} cannot be written: {error.strerror or error}."
        raise OutputError(target, message) from error
    finally:
        # Where it could not be made it cannot be removed, and the reason is on its way already.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
