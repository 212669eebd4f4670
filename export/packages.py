"""What an export needs beyond the runtime, and how it is installed."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from pxdbg_runtime.optional_imports import require

__all__ = ["require_packages"]

_MODULES: Final = ("torch", "onnx", "onnxscript", "onnx_ir", "onnxruntime", "safetensors", "scipy")


def require_packages(command: str) -> None:
    """Make sure that a command's packages are installed, without importing them.

    Parameters
    ----------
    command : str
        Such as ``python -m export``, the subject of the message.

    Raises
    ------
    MissingPackageError
        If one of them is not, with the command that installs all.
    """
    for module in _MODULES:
        if not _is_installed(module):
            require(module, extra="export", purpose=command)


def _is_installed(module: str) -> bool:
    if module in sys.modules:  # None where the import is blocked, which find_spec answers with an error
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None
