"""Readers that do what a file says: with them the fuzzer itself is tested."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import JsonFieldError
from tests.fuzz.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["build_hanging", "build_obedient"]

SAMPLE: Final = b"a sound file"


def build_obedient(folder: Path) -> Reader:
    """Build a reader that does what the file says."""
    del folder

    def read(path: Path) -> object:
        content = path.read_bytes()
        if content == b"hang":
            time.sleep(600)
        if content == b"crash":
            os._exit(7)
        if content == b"memory":
            return bytearray(os.urandom(1)) * 1_300_000_000 and None
        if content == b"foreign error":
            raise KeyError(content)
        if content in {b"refused", b"bad message"}:
            message = "It is wrong." if content == b"refused" else "It is\nwrong."
            raise JsonFieldError("", message)
        return None if content == b"accepted" else content.replace(b"equal", SAMPLE)

    return Reader(samples=(SAMPLE,), read=read, file_name="file", mutate=lambda *_: b"equal")


def build_hanging(folder: Path) -> Reader:
    reader = build_obedient(folder)
    return Reader(
        samples=reader.samples,
        read=reader.read,
        file_name="file",
        mutate=lambda _, rng: rng.choice((b"hang", b"crash")),
    )
