"""Limits of the cgroups of this process on CPU time and memory. Only Linux has cgroups."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_cpu_quota", "read_memory_limit"]

_MOUNTS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_NO_LIMIT: Final = 2**62
"""Version 1 writes the largest multiple of a page size if there is no limit on memory."""


def read_cpu_quota(mounts: Path = _MOUNTS, membership: Path = _MEMBERSHIP) -> float | None:
    """Read how many seconds of CPU time per second the cgroups allow.

    Parameters
    ----------
    mounts : Path
        Where cgroups are mounted.
    membership : Path
        The file that names the cgroups of this process.

    Returns
    -------
    float or None
        The smallest quota of this process's cgroups and their ancestors; None if there is none.
    """
    quotas = []
    for folder in _list_folders("cpu", mounts, membership):
        # Version 2: "200000 100000" or "max 100000"; version 1: two files, and -1 for no quota.
        words = _read_text(folder / "cpu.max").split()
        if not words:
            words = [_read_text(folder / "cpu.cfs_quota_us").strip(), _read_text(folder / "cpu.cfs_period_us").strip()]
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def read_memory_limit(mounts: Path = _MOUNTS, membership: Path = _MEMBERSHIP) -> int | None:
    """Read how much memory the cgroups allow, in bytes; parameters and result as in `read_cpu_quota`."""
    limits = []
    for folder in _list_folders("memory", mounts, membership):
        text = (_read_text(folder / "memory.max") or _read_text(folder / "memory.limit_in_bytes")).strip()
        if text.isdecimal() and int(text) < _NO_LIMIT:
            limits.append(int(text))
    return min(limits, default=None)


def _list_folders(controller: str, mounts: Path, membership: Path) -> Iterator[Path]:
    """Yield the folders of a controller's cgroups, from this process's up to the root; some may not exist.

    In a container the folder that the membership names may not be mounted, only the root.
    """
    for line in _read_text(membership).splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            roots = [mounts, mounts / "unified"]  # version 2; the latter where it is beside version 1
        elif controller in controllers.split(","):
            roots = [mounts / controllers, mounts / controller]
        else:
            continue
        for root in roots:
            folder = root / path.lstrip("/")
            yield folder
            while folder != root and root in folder.parents:
                folder = folder.parent
                yield folder


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
