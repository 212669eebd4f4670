"""The release's simulation: the modules whose order matters here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from basf2 import Path


def add_simulation(
    path: Path,
    components: list[str] | None = None,
    bkgfiles: list[str] | None = None,
    *,
    bkgOverlay: bool = True,  # noqa: N803
) -> None:
    """Add the simulation; modules that are there already are left out."""
    path.add_module("StatisticsSummary")  # certified, since 2023-12
    if bkgfiles is not None and bkgOverlay:
        path.add_module("BGOverlayInput", inputFileNames=bkgfiles)
    for name in ("Gearbox", "Geometry"):
        if name not in path:
            path.add_module(name)
    path.add_module("FullSim")
    if components is None or "PXD" in components:
        path.add_module("PXDDigitizer")
    if bkgfiles is not None and bkgOverlay:
        path.add_module("BGOverlayExecutor", PXDDigitsName="")
    if components is None or "PXD" in components:
        path.add_module("PXDDigitSorter")
