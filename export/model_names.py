"""Names of models: the check of a given name, and the default from the name of the checkpoint file."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_name", "derive_name"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX_LENGTH: Final = 100


def check_name(name: str) -> str:
    """Return a name as it is.

    Raises
    ------
    ArgumentValueError
        If it does not start with a letter or digit, or holds anything but ASCII letters, digits, '.', '_' and '-'.
    """
    if not _NAME.fullmatch(name):
        message = (
            "--name must start with a letter or digit and hold only ASCII letters, digits, '.', '_' and '-', but is "
            f"{name!r}."
        )
        raise ArgumentValueError("name", message)
    return name


def derive_name(checkpoint: Path, family: str) -> str:
    """Derive a valid name from that of a checkpoint file; take the name of the family if no character is valid.

    >>> from pathlib import Path
    >>> derive_name(Path("epoch=12-step=3400.ckpt"), "resnet")
    'epoch-12-step-3400'
    """
    stem = unicodedata.normalize("NFKD", checkpoint.stem).encode("ascii", "ignore").decode("ascii")
    joined = re.sub(r"[^A-Za-z0-9._]+", "-", stem)
    return joined.lstrip("._-")[:_MAX_LENGTH].rstrip("._-") or family
