"""What the pictures of a validation have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Style", "create_figure", "escape_name"]


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a sample is drawn in all pictures: arguments of matplotlib."""

    color: str
    linestyle: str = "-"
    linewidth: float = 1.4


def create_figure(height_inches: float, width_inches: float = 8) -> Figure:
    """Create an empty figure, without matplotlib's global state."""
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width_inches, height_inches), layout="constrained")


def escape_name(name: str) -> str:
    """Escape what matplotlib reads as mathematics, omits from a legend (a leading underscore) or cannot encode."""
    text = name.encode(errors="backslashreplace").decode().replace("$", r"\$")
    return f"\N{ZERO WIDTH SPACE}{text}" if name.startswith("_") else text
