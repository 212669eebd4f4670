"""The release's event generators."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from basf2 import Path


def add_evtgen_generator(path: Path, finalstate: str) -> None:
    """Add EvtGen."""
    if finalstate not in {"charged", "mixed"}:
        raise ValueError(finalstate)
    path.add_module("EvtGenInput")
