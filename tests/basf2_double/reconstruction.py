"""The release's reconstruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from basf2 import Path


def add_reconstruction(path: Path) -> None:
    """Add the reconstruction."""
    path.add_module("PXDClusterizer")
