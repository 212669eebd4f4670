"""Keep pytest from importing the programs here: they have no doctests, and some take minutes."""

from __future__ import annotations

collect_ignore_glob = ["*.py", "*/*.py"]
