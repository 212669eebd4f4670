"""Link sections of the documentation."""

from __future__ import annotations

import importlib.metadata
from typing import Final

__all__ = ["link_section"]

_LABEL: Final = "Documentation, "
_NO_ADDRESS: Final = ".invalid/"
"""End of the address in pyproject.toml as long as the documentation has no public one (RFC 2606)."""


def link_section(section: str) -> str:
    """Link a section of the documentation.

    Parameters
    ----------
    section : str
        Page in the folder ``docs`` of the sources, and anchor, such as ``running.md#grid-slots``.

    Returns
    -------
    str
        Its address on the site that pyproject.toml names; without a public site its path in the sources.
    """
    address = _find_site()
    if address is None:
        return f"docs/{section}"
    page, _, anchor = section.partition("#")
    return f"{address}{page.removesuffix('.md')}.html#{anchor}"


def _find_site() -> str | None:
    """Find the address of the documentation in the metadata of the installed package; it ends with a slash."""
    try:
        links = importlib.metadata.metadata("pxdbg-runtime").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    addresses = [link.removeprefix(_LABEL) for link in links if link.startswith(_LABEL)]
    return next((each for each in addresses if not each.endswith(_NO_ADDRESS)), None)
