"""The release's output."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from basf2 import Path


def add_mdst_output(path: Path, mc: bool = True, filename: str = "mdst.root") -> None:
    """Add the output."""
    path.add_module("RootOutput", outputFileName=filename, mc=mc)
