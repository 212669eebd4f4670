"""A reader of files, with sound files to alter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fuzz.mutations import mutate_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

__all__ = ["Reader"]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Something that reads a file.

    Attributes
    ----------
    samples : tuple of bytes
        Sound files, or what `seal` makes sound files of.
    read : callable
        Reads the file at a path. Returns what a digest protects, which no accepted file may differ in, or None.
    file_name : str
        Name of the file to read; the suffix may matter.
    mutate : callable
        Alters a sample.
    seal : callable
        Makes a file of an altered sample, for example by adding the right digest.
    """

    samples: tuple[bytes, ...]
    read: Callable[[Path], object]
    file_name: str
    mutate: Callable[[bytes, Random], bytes] = mutate_bytes
    seal: Callable[[bytes], bytes] = bytes
