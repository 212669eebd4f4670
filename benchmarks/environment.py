"""Where a benchmark ran: processor, cores, versions and date."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.providers import onnxruntime_wheels
from pxdbg_runtime.version import __version__

__all__ = ["NOT_INSTALLED", "Environment", "PackageVersion", "check_installed", "core_count", "describe_environment"]

NOT_INSTALLED: Final = "not installed"
_PACKAGES: Final = ("numpy", "numba", "torch", "openvino")
_CPU_INFO: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class PackageVersion:
    """A package and its version, or that it is not installed."""

    package: str
    version: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a measurement depends on beside the code.

    Attributes
    ----------
    date : str
        When the benchmark began, ISO 8601 in UTC.
    processor : str
        Model name of the CPU.
    n_cores : int
        Cores that this process may use.
    packages : tuple of PackageVersion
        Python and whatever takes part.
    """

    date: str
    processor: str
    n_cores: int
    packages: tuple[PackageVersion, ...]


def describe_environment() -> Environment:
    """Find out where this process runs. Nothing heavy is imported."""
    wheels = onnxruntime_wheels() or {"onnxruntime": NOT_INSTALLED}
    versions = {
        "python": platform.python_version(),
        "pxdbg-runtime": __version__,
        **{package: _version(package) for package in _PACKAGES},
        **wheels,
    }
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=_processor(),
        n_cores=core_count(),
        packages=tuple(PackageVersion(package=package, version=version) for package, version in versions.items()),
    )


def core_count() -> int:
    """Count the cores that this process may use; a batch system often allows fewer than there are."""
    return len(os.sched_getaffinity(0))


def check_installed(package: str) -> None:
    """Find out without importing it whether a package is there.

    Parameters
    ----------
    package : str
        Import name.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        message = f"{NOT_INSTALLED}: pip install {package}"
        raise MissingPackageError(package, "bench", message)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return NOT_INSTALLED


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
