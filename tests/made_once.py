"""What takes long to make is made once in a run of the tests, by the first process that asks; the others read it."""

from __future__ import annotations

import atexit
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

_VARIABLE: Final = "PXDBG_TESTS_FOLDER"
"""The processes that pytest-xdist starts inherit it."""

Made = TypeVar("Made")


def find_folder() -> Path:
    """Find the temporary folder that all processes of a run have in common; the first that asks makes it."""
    if _VARIABLE not in os.environ:
        os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="pxdbg-tests-")
        atexit.register(shutil.rmtree, os.environ[_VARIABLE], ignore_errors=True)
    return Path(os.environ[_VARIABLE])


def make_once(name: str, make: Callable[[Path], Made]) -> Made:
    """Give what a function makes in a folder of its own: do not change what lies there."""
    folder = find_folder() / name
    written = folder / "made.pickle"
    with FileLock(f"{folder}.lock"):
        if not written.exists():
            folder.mkdir(exist_ok=True)
            written.write_bytes(pickle.dumps(make(folder)))
    made: Made = pickle.loads(written.read_bytes())
    return made
