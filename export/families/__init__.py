"""Generator families: one module each, and the registry of them. Importing this package does not import PyTorch."""

from __future__ import annotations

import importlib
from typing import Final

from export.families.family import Family, Feed

__all__ = ["FAMILIES", "Family", "Feed", "load_family"]

FAMILIES: Final[dict[str, str]] = {
    "convnet": "export.families.convnet",
    "resnet": "export.families.resnet",
    "ieagan": "export.families.ieagan",
}
"""The module that declares each family, as its ``FAMILY``."""


def load_family(name: str) -> Family:
    """Import the module of a family, and PyTorch with it, and return the description."""
    family: Family = importlib.import_module(FAMILIES[name]).FAMILY
    return family
