"""Keep resident memory flat over many events."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

__all__ = ["return_freed_memory"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_THRESHOLD_BYTES: Final = 1 << 20


def return_freed_memory() -> bool:
    """Let glibc give large arrays back to the system as soon as they are freed, in this whole process.

    By default it keeps freed arrays of up to 32 MB in its heap, which the sizes of different events fragment: it grows
    by some kB an event over hundreds of events. Measured with CPUs: the same speed. On a GPU an event may take as long
    as the system takes to provide the memory for its images: call it for CPUs alone.

    Returns
    -------
    bool
        False where there is no glibc.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl has no such options, and does not need them
        return False
    return all(mallopt(option, _THRESHOLD_BYTES) == 1 for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD))
