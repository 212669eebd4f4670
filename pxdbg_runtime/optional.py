"""Packages that not every user has: one importer, whose message is the command that installs them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pxdbg_runtime.address_space import prepare_import
from pxdbg_runtime.errors import MissingPackageError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["require"]


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
    """
    prepare_import(module)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        message = f"{purpose} needs {package}, which is not installed: pip install 'pxdbg-runtime[{extra}]'."
        raise MissingPackageError(package, extra, message) from None
