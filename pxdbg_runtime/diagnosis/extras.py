"""Find out which extras of pxdbg-runtime are installed, and whether their packages import."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.diagnosis.finding import Finding
from pxdbg_runtime.errors import one_line
from pxdbg_runtime.optional_imports import IMPORT_NAMES, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Requirement", "diagnose_extras", "find_version", "list_requirements"]

_DISTRIBUTION: Final = "pxdbg-runtime"
_REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*(?:>=\s*(?P<oldest>[\d.]+))?")
_EXTRA: Final = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_PLATFORM: Final = re.compile(r"(sys_platform|platform_machine) == ['\"](\w+)['\"]")
_RUNTIMES: Final = frozenset({"cpu", "gpu"})
"""Extras that install ONNX Runtime, which is diagnosed by itself."""
_TIMEOUT_S: Final = 120
_SHOWN_LENGTH: Final = 200


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A package that pxdbg-runtime or one of its extras needs.

    Attributes
    ----------
    name : str
        Of the distribution on PyPI.
    oldest : str
        Oldest version that is admitted.
    extra : str or None
        The extra that needs it; None if pxdbg-runtime itself does.
    """

    name: str
    oldest: str
    extra: str | None

    @property
    def import_name(self) -> str:
        """Name of the Python package."""
        return IMPORT_NAMES.get(self.name, self.name.replace("-", "_"))


def list_requirements(lines: Iterable[str] | None = None) -> tuple[Requirement, ...]:
    """List what the metadata of the installed pxdbg-runtime require here; nothing if pip did not install it.

    Requirements of other platforms are left out: pip would not install them.

    Parameters
    ----------
    lines : iterable of str, optional
        Requirements as in the metadata of a wheel; those of the installed one if None.
    """
    if lines is None:
        try:
            lines = importlib.metadata.requires(_DISTRIBUTION) or []
        except importlib.metadata.PackageNotFoundError:
            lines = []
    requirements = []
    for line in lines:
        found, extra = _REQUIREMENT.match(line), _EXTRA.search(line)
        if found is not None and _is_for_this_platform(line):
            oldest = (found["oldest"] or "0").rstrip(".")
            requirements.append(Requirement(name=found["name"], oldest=oldest, extra=extra[1] if extra else None))
    return tuple(requirements)


def _is_for_this_platform(requirement: str) -> bool:
    """Whether a requirement is for this platform; ours compare it with ``==`` and ``and`` alone."""
    here = {"sys_platform": sys.platform, "platform_machine": platform.machine()}
    return all(here[name] == value for name, value in _PLATFORM.findall(requirement))


def diagnose_extras(requirements: Iterable[Requirement], *, imports: bool = True) -> Iterator[Finding]:
    """Find out for each extra, those of ONNX Runtime aside, whether its packages are installed, new enough and import.

    Parameters
    ----------
    requirements : iterable of Requirement
    imports : bool
        Import the packages, each extra's in a process of its own: a broken library may end the process.
    """
    extras: dict[str, list[Requirement]] = {}
    for each in requirements:
        if each.extra is not None and each.extra not in _RUNTIMES:
            extras.setdefault(each.extra, []).append(each)
    for extra, needed in extras.items():
        yield _diagnose_extra(extra, needed, imports=imports)


def _diagnose_extra(extra: str, needed: list[Requirement], *, imports: bool) -> Finding:
    subject, install = f"extra {extra}", f"pip install '{_DISTRIBUTION}[{extra}]'"
    versions = {each.name: find_version(each.name) for each in needed}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        return Finding(subject=subject, state="missing", text=f"{', '.join(absent)} not installed: {install}")
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    old = [each for each in needed if parse_version(versions[each.name] or "") < parse_version(each.oldest)]
    if old:
        wanted = ", ".join(f"{each.name} {each.oldest}" for each in old)
        text = f"{listed}; expected {wanted} or newer: {install.replace('install', 'install -U', 1)}"
        return Finding(subject=subject, state="broken", text=text)
    failure = _try_import([each.import_name for each in needed]) if imports else None
    if failure is not None:
        text = f"{listed}; does not import ({failure}): {install.replace('install', 'install --force-reinstall', 1)}"
        return Finding(subject=subject, state="broken", text=text)
    return Finding(subject=subject, state="ok", text=listed)


def find_version(distribution: str) -> str | None:
    """Find the version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution) or "of an unknown version"
    except importlib.metadata.PackageNotFoundError:
        return None


def _try_import(modules: list[str]) -> str | None:
    """Import modules in a new process; return why that failed, or None."""
    command = [sys.executable, "-P", "-c", f"import {', '.join(modules)}"]
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not within {_TIMEOUT_S} s"
    except OSError as error:
        return one_line(error)
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"the process is ended by {_name_signal(-done.returncode)}"
    lines = done.stderr.strip().splitlines()
    return lines[-1][:_SHOWN_LENGTH] if lines else f"exit code {done.returncode}"


def _name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
