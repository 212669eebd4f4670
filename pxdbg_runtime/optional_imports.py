"""Packages that not every user has: one importer, whose message is the command that installs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import BrokenPackageError, MissingPackageError, PxdbgError
from pxdbg_runtime.limits.address_space import import_within_limits

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["IMPORT_FAILURES", "describe_failure", "is_missing", "require"]

IMPORT_FAILURES: Final = (
    ImportError,  # a library or another package is missing, a symbol is not found, a wheel is another platform's
    OSError,  # a library cannot be loaded or read
    AttributeError,  # half of the package is missing, or another package has not what it expects
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,  # these four: compiled for another NumPy
    SyntaxError,  # written for another Python
)
"""What a broken installation raises when it is imported."""
_PARTS: Final = {"pyarrow": "pyarrow.parquet", "matplotlib": "matplotlib.figure"}
"""What is used of a package that imports without its parts: they are tried with it."""
_SHOWN_LENGTH: Final = 300


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Import name, dotted if need be.
    extra : str
        Extra of pxdbg-runtime that brings it.
    purpose : str
        What needs it, the subject of the message.

    Raises
    ------
    MissingPackageError
        If it is not installed.
    BrokenPackageError
        If it is installed, but does not import.
    """
    package = module.partition(".")[0]
    try:
        import_within_limits(package)
        import_within_limits(_PARTS.get(package, package))
        return import_within_limits(module)
    except PxdbgError:
        raise
    except IMPORT_FAILURES as error:
        if is_missing(package, error):
            message = f"{purpose} needs {package}, which is not installed: pip install 'pxdbg-runtime[{extra}]'."
            raise MissingPackageError(package, extra, message) from None
        message = (
            f"{purpose} needs {package}, which is installed but does not import ({describe_failure(error)}): install it "
            f"again: pip install --upgrade --force-reinstall {package}."
        )
        raise BrokenPackageError(package, extra, message) from error


def is_missing(package: str, error: Exception) -> bool:
    """Say whether an import failed because the whole package is not there."""
    return isinstance(error, ModuleNotFoundError) and error.name == package


def describe_failure(error: Exception) -> str:
    """Write why an import failed in a line; NumPy and dynamic loaders write pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"
