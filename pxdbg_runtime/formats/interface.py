"""What a format of digit files implements: a writer of events, and a reader of rows and of the texts beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits

__all__ = [
    "BLOCK_ROWS",
    "DIGEST_KEY",
    "MAX_METADATA_BYTES",
    "METADATA_KEY",
    "Columns",
    "ContentError",
    "DigitWriter",
    "FormatReader",
    "StoredTexts",
]

METADATA_KEY: Final = "pxdbg"
"""Name of the text that describes how the digits were generated."""
DIGEST_KEY: Final = "pxdbg_digest"
"""Name of the text that holds the digest, where a format names it. Other tools drop it when they rewrite a file."""
MAX_METADATA_BYTES: Final = 1 << 20
"""Longest text that is read from a file's metadata; ours have about a thousand bytes."""
BLOCK_ROWS: Final = 1 << 17
"""Rows that are read at a time, 2 MB of columns: about two events."""

Columns = dict[str, "NDArray[np.generic]"]
"""Columns as a file holds them: integers of any width, all of one length."""


class ContentError(Exception):
    """A file is readable, but its content is invalid; the message completes the sentence "a.parquet …"."""


@dataclass(frozen=True, kw_only=True)
class StoredTexts:
    """The texts beside the rows of a file, and how many events it lists.

    Attributes
    ----------
    metadata : str or None
        JSON of `FileMetadata`; None if the file has none.
    digest : str or None
        JSON of `FileDigest`; None in files of older releases and of other tools.
    n_events : int or None
        Number of events, those without digits too, if the file lists them; None if it only has the event of each digit.
    """

    metadata: str | None
    digest: str | None
    n_events: int | None = None


class DigitWriter(Protocol):
    """Takes the digits of one event after the other."""

    def write(self, digits: Digits) -> None:
        """Append digits.

        Raises
        ------
        ArgumentValueError
            If one is no digit of the PXD, or if they are not ordered by event, sensor, u, v, come twice, or contradict
            the file's `Provenance`.
        """


class FormatReader(Protocol):
    """Reads one format; each call opens the file anew.

    Its methods raise `ContentError` and whatever the library that reads the format raises: call them within
    `report_damage`.
    """

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the columns exist and hold integers."""

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows, at most `BLOCK_ROWS` at a time."""
