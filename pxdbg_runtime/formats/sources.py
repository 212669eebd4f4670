"""Which files are files of digits, and how every way in which one can be damaged becomes one sentence."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError, PxdbgError
from pxdbg_runtime.limits.address_space import report_memory_errors
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "BLOCK_ROWS",
    "DIGEST_KEY",
    "MAX_METADATA_BYTES",
    "METADATA_KEY",
    "SUFFIXES",
    "Columns",
    "DigitSource",
    "StoredTexts",
    "check_suffix",
    "report_damage",
]

SUFFIXES: Final = (".parquet", ".npz")
METADATA_KEY: Final = "pxdbg"
"""Name of the text that says how the digits were made."""
DIGEST_KEY: Final = "pxdbg_digest"
"""Name of the text that holds the digest, where a format names it. Other tools drop it when they rewrite a file."""
MAX_METADATA_BYTES: Final = 1 << 20
"""Longest text that is read from a file's metadata; ours have about a thousand bytes."""
BLOCK_ROWS: Final = 1 << 17
"""Rows that are read at a time, 2 MB of columns: about two events."""

Columns = dict[str, "NDArray[np.generic]"]
"""Columns as they come out of a file: integers of any width, all of one length."""

# pyarrow: ValueError, KeyError, NotImplementedError, TypeError; an array's header in an NPZ is a Python
# expression, which NumPy reads with tokenize and ast; zipfile raises RuntimeError for what is encrypted.
_DAMAGED: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,  # NotImplementedError and RecursionError among them
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, zipfile and pyarrow raise where the bytes are not what they should be. Not MemoryError, which mostly comes of
the limits of a job, whatever the file holds."""


@dataclass(frozen=True, kw_only=True)
class StoredTexts:
    """The texts beside the rows of a file.

    Attributes
    ----------
    metadata : str or None
        How the digits were made, JSON; None if the file says nothing.
    digest : str or None
        Digest of rows and metadata, JSON; None in files of older releases, and in those that another tool wrote.
    """

    metadata: str | None
    digest: str | None


class DigitSource(Protocol):
    """Reads one format; each call opens the file anew.

    Its methods raise whatever NumPy, zipfile or pyarrow raise: call them within `report_damage`.
    """

    def texts(self) -> StoredTexts:
        """Read the texts, and check that the columns are there and hold integers."""

    def blocks(self) -> Iterator[Columns]:
        """Read the rows, a bounded number at a time."""


def check_suffix(path: Path) -> None:
    """Check that a path names a format that can be read and written here.

    Raises
    ------
    ArgumentValueError
        If it ends neither in .parquet nor in .npz.
    MissingPackageError
        If it is Parquet and pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        message = f"{path} must end in {' or '.join(SUFFIXES)}, the formats of files of digits."
        raise ArgumentValueError("path", message)
    if path.suffix == ".parquet":
        require("pyarrow", extra="parquet", purpose="Parquet")


@contextlib.contextmanager
def report_damage(path: Path) -> Iterator[None]:
    """Turn what is raised while a file is read into a `DigitFileError` of one sentence.

    Raises
    ------
    DigitFileError
        If the file cannot be read, or is damaged.
    MemoryLimitError
        If the memory does not suffice.
    """
    try:
        with report_memory_errors(f"to read {path}"):
            yield
    except PxdbgError:
        raise
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or _one_line(error)}."
        raise DigitFileError(path, message) from None
    except _DAMAGED as error:
        message = (
            f"{path} is not a file of digits written by pxdbg-runtime, or is damaged ({_one_line(error)}): "
            "generate it again."
        )
        raise DigitFileError(path, message) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
