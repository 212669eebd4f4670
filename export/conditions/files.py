"""Files of payloads: their two layouts in a folder, and the check of their MD5.

A payload is at ``<folder>/<first two hexadecimal digits of its MD5>/<name>_r<revision>.root``, as in the cache of
basf2, or at ``<folder>/dbstore_<name>_rev_<revision>.root``, as in its folders of testing payloads.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from export.errors import ConditionsError
from pxdbg_runtime.basf2.payloads import payload_path
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
        If the file no longer has the MD5.
    """
    with TemporaryDirectory(prefix="pxdbg-payload-") as folder:
        copy = payload_path(Path(folder), entry.name, entry.revision, entry.md5)
        copy.parent.mkdir()
        with open_regular(path) as source, copy.open("xb") as target:
            shutil.copyfileobj(source, target)
        if not _has_md5(copy, entry.md5):
            message = f"{path} was changed after its MD5 {entry.md5} was checked: run the command again."
            raise ConditionsError(message)
        yield copy


def _has_md5(path: Path, md5: str) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open_regular(path) as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:  # it is not there, not readable, or not a regular file
        return False
    return digest.hexdigest() == md5
