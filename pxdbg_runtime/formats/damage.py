"""Every way in which a digit file can be damaged becomes one `DigitFileError` of one sentence."""

from __future__ import annotations

import contextlib
import struct
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import DigitFileError, PxdbgError, one_line
from pxdbg_runtime.formats.interface import ContentError
from pxdbg_runtime.limits.address_space import report_memory_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime.formats.row_checks import RowError

__all__ = ["CHANGED", "refuse_rows", "report_damage"]

CHANGED: Final = "it is damaged, or was changed after it was written: generate it again"
"""What is wrong with a file that does not match its digest."""
# pyarrow: ValueError, KeyError, NotImplementedError, TypeError; an array's header in an NPZ is a Python
# expression, which NumPy reads with tokenize and ast; zipfile raises RuntimeError for what is encrypted.
_DAMAGED: Final = (
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,  # NotImplementedError and RecursionError among them
    SyntaxError,
    TypeError,
    UnboundLocalError,  # uproot 5.7, where compressed data hold no block
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, zipfile, pyarrow and uproot raise where the bytes are not what they should be. Not MemoryError, whose
usual cause is the limits of a job, whatever the file holds."""


@contextlib.contextmanager
def report_damage(path: Path) -> Iterator[None]:
    """Turn the exceptions of the libraries that read a file into a `DigitFileError` of one sentence.

    Raises
    ------
    DigitFileError
        If the file cannot be read, is damaged, or has invalid content.
    MemoryLimitError
        If the memory does not suffice.
    """
    try:
        with report_memory_errors(f"to read {path}"):
            yield
    except PxdbgError:
        raise
    except OSError as error:
        raise DigitFileError(path, f"{path} cannot be read: {error.strerror or one_line(error)}.") from None
    except ContentError as error:
        raise DigitFileError(path, f"{path} {error}.") from None
    except _DAMAGED as error:
        message = (
            f"{path} is not a digit file written by pxdbg-runtime, or is damaged ({one_line(error)}): "
            "generate it again."
        )
        raise DigitFileError(path, message) from None


def refuse_rows(path: Path, error: RowError, *, has_digest: bool = False) -> DigitFileError:
    """Build the error of a file whose rows are invalid."""
    if has_digest:
        advice = CHANGED
    elif error.is_duplicate:
        advice = "leave out what was merged twice, or generate it again"
    else:
        advice = "generate it again"
    return DigitFileError(path, f"{path} holds {error}: {advice}.")
