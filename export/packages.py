"""What an export needs beyond the runtime, and how it is installed."""

from __future__ import annotations

import importlib.util
import sys
from typing import Final

from pxdbg_runtime.optional import require

__all__ = ["require_packages"]

_MODULES: Final = ("torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "scipy")


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
        is_installed = sys.modules[module] is not None if module in sys.modules else importlib.util.find_spec(module)
        if not is_installed:
            require(module, extra="export", purpose=command)
