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
        ``missing`` and ``broken`` are for optional packages; ``fails`` means that no event can be generated.
    text : str
        What was found, why that is, and what to do.
    """

    subject: str
    state: FindingState
    text: str
