"""The environment of a benchmark: processor, cores, versions and date."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.inference.providers import find_onnxruntime_wheels
from pxdbg_runtime.limits.threads import count_job_cpus
from pxdbg_runtime.model.card import PackageVersion
from pxdbg_runtime.version import __version__

NOT_INSTALLED: Final = "not installed"
_PACKAGES: Final = ("numpy", "numba", "torch", "openvino", "nncf", "pyarrow", "h5py", "uproot", "awkward", "ROOT")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a measurement depends on, apart from the code; `date` is the start of the benchmark, ISO 8601 in UTC."""

    date: str
    processor: str
    n_cores: int
    packages: tuple[PackageVersion, ...]


def describe_environment() -> Environment:
    """Describe the environment of this process, without importing the packages."""
    versions = {
        "python": platform.python_version(),
        "pxdbg-runtime": __version__,
        **find_versions(_PACKAGES),
    }
    return Environment(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        processor=detect_cpu().name,
        n_cores=count_cores(),
        packages=tuple(PackageVersion(package=package, version=version) for package, version in versions.items()),
    )


def count_cores() -> int:
    """Count the cores that this process may use: in a batch job often fewer than the machine has."""
    return count_job_cpus().count


@contextlib.contextmanager
def use_one_core() -> Iterator[None]:
    """Bind this thread, and those that it starts, to one of its cores; does nothing but on Linux.

    Threads that run already, such as those of a loaded BLAS, keep their cores.
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
    """Raise `MissingPackageError` if a package is not installed, without importing it."""
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(package, "bench", f"{NOT_INSTALLED}: pip install {package}")


def find_versions(packages: Sequence[str]) -> dict[str, str]:
    """Find the versions of packages and of ONNX Runtime, without importing them."""
    versions = {package: _find_version(package) for package in packages}
    return {**versions, **(find_onnxruntime_wheels() or {"onnxruntime": NOT_INSTALLED})}


def _find_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        # ROOT is often installed without metadata: with basf2, by conda, or from its sources.
        return NOT_INSTALLED if importlib.util.find_spec(package) is None else "of an unknown version"
