"""Packages that the export needs beyond the runtime."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from pxdbg_runtime.optional_imports import require

__all__ = ["require_packages"]

_MODULES: Final = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "safetensors")


def require_packages(command: str) -> None:
    """Check that the packages of the export are installed, without importing them.

    Parameters
    ----------
    command : str
        Subject of the message, such as ``python -m export``.

    Raises
    ------
    MissingPackageError
        If one is missing. The message holds the command that installs all.
    """
    for module in _MODULES:
        if not _is_installed(module):
            require(module, extra="export", purpose=command)


def _is_installed(module: str) -> bool:
    if module in sys.modules:  # None blocks an import, and find_spec would raise
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None
