"""Where a benchmark ran: processor, cores, versions and date."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.inference.providers import find_onnxruntime_wheels
from pxdbg_runtime.limits.threads import count_job_cpus
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "NOT_INSTALLED",
    "Environment",
    "PackageVersion",
    "check_installed",
    "core_count",
    "describe_environment",
    "one_core",
]

NOT_INSTALLED: Final = "not installed"
_PACKAGES: Final = ("numpy", "numba", "torch", "openvino")


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
    wheels = find_onnxruntime_wheels() or {"onnxruntime": NOT_INSTALLED}
    versions = {
        "python": platform.python_version(),
        "pxdbg-runtime": __version__,
        **{package: _version(package) for package in _PACKAGES},
        **wheels,
    }
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=detect_cpu().name,
        n_cores=core_count(),
        packages=tuple(PackageVersion(package=package, version=version) for package, version in versions.items()),
    )


def core_count() -> int:
    """Count the cores that this process may use; a batch system often allows fewer than there are."""
    return count_job_cpus().count


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Bind this process to one of its cores for a while, so that one thread's worth of work has one core's time.

    Only Linux binds processes; elsewhere it does nothing.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


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
