"""What an export keeps of the original generator unless it is told otherwise."""

from __future__ import annotations

from typing import Final

__all__ = ["ORIGINAL_MIN_CHARGE"]

ORIGINAL_MIN_CHARGE: Final = 1
"""The original's smallest charge of a hit, ADU: it has no read-out threshold."""
