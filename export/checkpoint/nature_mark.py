"""The mark by which the export knows random weights and stand-ins, which it must not call weights of a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MARKED_PROVENANCES", "MarkedNature", "build_mark", "read_mark"]

MarkedNature = Literal["demonstration", "stand-in"]
MARKED_PROVENANCES: Final[Mapping[MarkedNature, str]] = {
    "demonstration": "Random weights of python -m export.demonstration, without any physics.",
    "stand-in": "A stand-in, not the collaboration's weights: rebuilt by python -m artifacts.standins.",
}
"""Origin of marked weights, in words."""
_KEY: Final = "pxdbg_nature"


def build_mark(nature: MarkedNature) -> dict[str, str]:
    """Build the metadata of a safetensors file of such weights."""
    return {_KEY: nature}


def read_mark(checkpoint: Path) -> MarkedNature | None:
    """Read the nature of the weights from a file that was read as a checkpoint; None if it has no mark."""
    try:
        with safe_open(checkpoint, framework="np") as file:
            found = (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError):
        return None
    return next((nature for nature in MARKED_PROVENANCES if nature == found), None)
