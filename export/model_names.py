"""Names of models: what is allowed, and the one that a checkpoint's file gives."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_name", "default_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST: Final = 100


def check_name(name: str) -> str:
    """Return a name as it is.

    Raises
    ------
    ArgumentValueError
        If it holds anything but letters, digits, '.', '_' and '-'.
    """
    if not _NAME.fullmatch(name):
        message = f"--name must hold letters, digits, '.', '_' and '-' alone, but is {name!r}."
        raise ArgumentValueError("name", message)
    return name


def default_name(checkpoint: Path, family: str) -> str:
    """Make a valid name of that of a checkpoint file; that of the family if nothing of it can be used.

    >>> from pathlib import Path
    >>> default_name(Path("epoch=12-step=3400.ckpt"), "resnet")
    'epoch-12-step-3400'
    """
    stem = unicodedata.normalize("NFKD", checkpoint.stem).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^A-Za-z0-9._]+", "-", stem)
    return joined.lstrip("._-")[:_LONGEST].rstrip("._-") or family
