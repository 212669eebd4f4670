"""Check what a release states about itself: ``python -m tests.release_ready v0.2.0``.

The version has one value in the tag, the package, CHANGELOG and CITATION.cff, and pyproject.toml names public
addresses.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

from pxdbg_runtime.version import __version__

REPOSITORY: Final = Path(__file__).resolve().parent.parent
NO_ADDRESS: Final = ".invalid"
"""Top-level domain of the addresses that stand for those to come (RFC 2606)."""


def list_obstacles(tag: str, repository: Path = REPOSITORY) -> list[str]:
    """List what prevents a release with this tag."""
    obstacles = []
    if tag != f"v{__version__}":
        obstacles.append(f"the tag is {tag}, but pxdbg_runtime/version.py says {__version__}")
    if not re.search(rf"^## \[{re.escape(__version__)}\]", read(repository, "CHANGELOG.md"), re.MULTILINE):
        obstacles.append(f"CHANGELOG.md has no section [{__version__}]")
    if not re.search(rf"^version: {re.escape(__version__)}$", read(repository, "CITATION.cff"), re.MULTILINE):
        obstacles.append(f"CITATION.cff names another version than {__version__}")
    urls = tomllib.loads(read(repository, "pyproject.toml"))["project"]["urls"]
    unset = [name for name, url in urls.items() if NO_ADDRESS in url]
    if unset:
        obstacles.append(f"[project.urls] of pyproject.toml has no public address for {', '.join(unset)}")
    return obstacles


def read(repository: Path, name: str) -> str:
    return (repository / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("expected a tag: make release-ready TAG=v0.2.0")
    found = list_obstacles(sys.argv[1])
    if found:
        sys.exit("\n".join(["Not ready for a release:", *found]))
    print(f"ready for {sys.argv[1]}")
