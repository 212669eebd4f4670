"""A double of basf2's Python modules around a real ROOT: this folder on the module path makes them importable."""

from __future__ import annotations
