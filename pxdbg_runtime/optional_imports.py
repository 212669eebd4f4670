"""Import optional packages; the message for a missing one is the command that installs it."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import BrokenPackageError, MissingPackageError, PxdbgError, one_line
from pxdbg_runtime.limits.address_space import import_within_limits

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "IMPORT_FAILURES",
    "IMPORT_NAMES",
    "describe_import_failure",
    "is_installed",
    "is_missing",
    "parse_version",
    "require",
]

IMPORT_FAILURES: Final = (
    ImportError,  # a library or another package is missing, a symbol is not found, a wheel is another platform's
    OSError,  # a library cannot be loaded or read
    AttributeError,  # a part of the package is missing, or another package is not the version that it expects
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,  # these four: compiled for another NumPy
    SyntaxError,  # written for another Python
)
"""Errors that the import of a broken installation raises."""
IMPORT_NAMES: Final = {"onnxruntime-gpu": "onnxruntime", "root": "ROOT", "scikit-learn": "sklearn"}
"""Packages whose name in Python is not that in pip."""
_PARTS: Final = {"pyarrow": "pyarrow.parquet", "matplotlib": "matplotlib.figure"}
"""Submodules that are needed of packages that import without them."""
_WARNINGS: Final = {"ROOT": r"\s*This distribution of ROOT is in alpha stage"}
"""Beginnings of warnings that packages give on import and that do not concern their use here."""
_SHOWN_LENGTH: Final = 300


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Import name, dotted if need be.
    extra : str
        Extra of pxdbg-runtime that installs it.
    purpose : str
        What needs it; subject of the message.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    BrokenPackageError
        If it is installed, but does not import.
    """
    package = module.partition(".")[0]
    try:
        with warnings.catch_warnings():
            if package in _WARNINGS:
                warnings.filterwarnings("ignore", message=_WARNINGS[package])
            import_within_limits(package)
        import_within_limits(_PARTS.get(package, package))
        return import_within_limits(module)
    except PxdbgError:
        raise
    except IMPORT_FAILURES as error:
        if is_missing(package, error):
            message = f"{purpose} needs {package}, which is not installed: pip install 'pxdbg-runtime[{extra}]'."
            raise MissingPackageError(package, extra, message) from None
        wheel = next((wheel for wheel, name in IMPORT_NAMES.items() if name == package), package)
        message = (
            f"{purpose} needs {package}, which is installed but does not import ({describe_import_failure(error)}): "
            f"install it again: pip install --upgrade --force-reinstall {wheel}."
        )
        raise BrokenPackageError(package, extra, message) from error


def is_installed(module: str) -> bool:
    """Whether a top-level module of an optional package is found; it may still fail to import."""
    return importlib.util.find_spec(module) is not None


def parse_version(version: str) -> tuple[int, ...]:
    """Parse the numbers at the beginning of a version; one without numbers counts as newer than any."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in found[0].split(".")) if found else (sys.maxsize,)


def is_missing(package: str, error: Exception) -> bool:
    """Whether an import failed because the whole package is missing."""
    return isinstance(error, ModuleNotFoundError) and error.name == package


def describe_import_failure(error: Exception) -> str:
    """Describe in one short line why an import failed; the messages of NumPy and dynamic loaders have many lines."""
    text = one_line(error)
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
