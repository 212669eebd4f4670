"""Files of payloads: their two layouts in a folder, and the check of their MD5.

A payload is at ``<folder>/<first two hexadecimal digits of its MD5>/<name>_r<revision>.root``, as in the cache of
basf2, or at ``<folder>/dbstore_<name>_rev_<revision>.root``, as in its folders of testing payloads.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from export.errors import ConditionsError
from pxdbg_runtime.basf2.payloads import payload_path
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from export.conditions.validity import PayloadEntry

__all__ = ["copy_privately", "find_payload_file", "flat_path"]


def flat_path(folder: Path, name: str, revision: int) -> Path:
    """Build the path of a payload in a folder of testing payloads.

    Examples
    --------
    >>> flat_path(Path("testing"), "PXDBackgroundGenerator_resnet", 3).as_posix()
    'testing/dbstore_PXDBackgroundGenerator_resnet_rev_3.root'
    """
    return folder / f"dbstore_{name}_rev_{revision}.root"


def find_payload_file(folder: Path, entry: PayloadEntry) -> Path | None:
    """Find the file of a payload in either layout; None if the folder has no readable file with its MD5."""
    paths = (
        payload_path(folder, entry.name, entry.revision, entry.md5),
        flat_path(folder, entry.name, entry.revision),
    )
    return next((path for path in paths if _has_md5(path, entry.md5)), None)


@contextmanager
def copy_privately(path: Path, entry: PayloadEntry) -> Iterator[Path]:
    """Yield a copy of a payload's file that no other user can change, named ``<name>_r<revision>.root``.

    Others can write to the cache. The MD5 is that of the copy, so it still holds when the copy is read.

    Raises
    ------
    ConditionsError
        If the file no longer has the MD5, or cannot be read.
    OutputError
        If the folder of temporary files has no room for the copy.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="pxdbg-payload-"))
            copy = payload_path(Path(folder), entry.name, entry.revision, entry.md5)
            copy.parent.mkdir()
            with copy.open("xb") as target:
                for chunk in _read_chunks(path):
                    target.write(chunk)
        except OSError as error:
            message = (
                f"{path} cannot be copied to a temporary folder: {error.strerror or error}. "
                "Set TMPDIR to a folder with room for it."
            )
            raise OutputError(path, message) from None
        if not _has_md5(copy, entry.md5):
            message = f"{path} was changed after its MD5 {entry.md5} was checked: run the command again."
            raise ConditionsError(message)
        yield copy


def _has_md5(path: Path, md5: str) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        for chunk in _read_chunks(path):
            digest.update(chunk)
    except ConditionsError:  # it is not there, not readable, or not a regular file
        return False
    return digest.hexdigest() == md5


def _read_chunks(path: Path) -> Iterator[bytes]:
    """Read a file in chunks of 1 MB; raises `ConditionsError` if that fails."""
    try:
        with open_regular(path) as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}: run the command again."
        raise ConditionsError(message) from None
