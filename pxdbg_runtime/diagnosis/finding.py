"""One line of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "FindingState"]

FindingState = Literal["ok", "note", "missing", "broken", "fails"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one thing.

    Attributes
    ----------
    subject : str
        Such as "CPU" or "extra parquet".
    state : {"ok", "note", "missing", "broken", "fails"}
        ``missing`` and ``broken`` are for what is optional. ``fails`` means that events cannot be generated, or that
        a package that is always needed is missing or too old.
    text : str
        What was found, why that is, and what to do.
    """

    subject: str
    state: FindingState
    text: str
