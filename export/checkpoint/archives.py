"""Read checkpoint files of `torch.save` and safetensors; the content decides the format, not the suffix."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import TYPE_CHECKING, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, load_file

from export.checkpoint.file_kinds import N_START, describe_file, describe_folder, describe_zip
from export.checkpoint.pickles import LEGACY_MAGIC, PickledContent, load_pickle
from export.errors import CheckpointError
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.limits.address_space import report_memory_errors
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["read_archive"]

_ZIP_MAGIC: Final = b"PK\x03\x04"
_MAX_HEADER_BYTES: Final = 100_000_000
"""Of a safetensors file."""
_MEMORY_PER_BYTE: Final = 4
_MEMORY_BYTES: Final = 100_000_000
"""Reading a checkpoint takes less memory than this constant, and the factor above times its size."""
# PyTorch's reader and the unpickler raise nearly any built-in exception for a damaged file.
_DAMAGE: Final = (
    SafetensorError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    OverflowError,
    ImportError,
    struct.error,
    zipfile.BadZipFile,
)


def read_archive(path: Path) -> PickledContent:
    """Read the content of a checkpoint file.

    Parameters
    ----------
    path : Path
        A file of ``torch.save`` (zip or legacy) or of safetensors, with any suffix.

    Raises
    ------
    CheckpointError
        If it cannot be read, is not a checkpoint, is damaged, or contains code.
    MemoryLimitError
        If there is too little memory.
    """
    if os.path.isdir(path):  # noqa: PTH112  # Path raises for a name that is too long
        raise CheckpointError(path, describe_folder(path))
    try:
        with open_regular(path) as file:
            start = file.read(N_START)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}.") from None
    is_zip = start.startswith(_ZIP_MAGIC)
    is_legacy = _is_legacy(start)
    is_safetensors = not (is_zip or is_legacy) and _is_safetensors(start)
    if not (is_zip or is_legacy or is_safetensors):
        raise CheckpointError(path, describe_file(start))
    other_kind = describe_zip(path) if is_zip else None
    if other_kind is not None:
        raise CheckpointError(path, other_kind)
    try:
        return PickledContent(content=_load_safetensors(path)) if is_safetensors else load_pickle(path)
    except PxdbgError:
        raise
    except (MemoryError, *_DAMAGE) as error:
        if _is_memory_error(error) and not _fits_into_memory(path):
            with report_memory_errors(f"to read {path}"):
                raise MemoryError(
                    str(error).split("\n")[0].rpartition("DefaultCPUAllocator: ")[2].rstrip(".")
                ) from None
        raise CheckpointError(path, f"is truncated or damaged: {_first_sentence(error)}") from None


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # load_file, which maps the file, refuses such a path
        return load(path.read_bytes())
    return load_file(path)


def _is_memory_error(error: Exception) -> bool:  # PyTorch raises a RuntimeError
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def _fits_into_memory(path: Path) -> bool:
    """Whether there is memory for an undamaged file of this size: a damaged length can request any amount."""
    try:
        np.empty(_MEMORY_PER_BYTE * path.stat().st_size + _MEMORY_BYTES, dtype=np.uint8)
    except MemoryError:
        return False
    return True


def _is_legacy(start: bytes) -> bool:
    """Whether the file starts with the pickled magic number, of any protocol, or is a truncated part of it."""
    return LEGACY_MAGIC in start[:32] or (bool(start) and (b"\x80\x02" + LEGACY_MAGIC).startswith(start))


def _is_safetensors(start: bytes) -> bool:
    """Whether the file starts with the length of a JSON header, and the header."""
    return start[8:9] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] <= _MAX_HEADER_BYTES


def _first_sentence(error: BaseException) -> str:
    text = str(error).split("\n")[0].split(". ")[0].strip().rstrip(".")
    return f"{text or type(error).__name__}."
