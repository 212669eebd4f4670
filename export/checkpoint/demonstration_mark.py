"""The mark by which the export knows the random weights of ``python -m export.demonstration``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DEMONSTRATION_MARK", "DEMONSTRATION_PROVENANCE", "is_demonstration"]

DEMONSTRATION_MARK: Final = {"pxdbg_nature": "demonstration"}
"""Metadata of the safetensors file."""
DEMONSTRATION_PROVENANCE: Final = "Random weights of python -m export.demonstration, without any physics."


def is_demonstration(checkpoint: Path) -> bool:
    """Whether a file that was read as a checkpoint says that its weights are random."""
    try:
        with safe_open(checkpoint, framework="np") as file:
            return (file.metadata() or {}).items() >= DEMONSTRATION_MARK.items()
    except (OSError, SafetensorError):
        return False
