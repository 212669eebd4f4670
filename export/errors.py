"""What can go wrong at export, each with the built-in exception that a caller would expect as a base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.errors import PxdbgError

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.card import Fidelity

__all__ = ["CheckpointError", "FidelityError", "GraphError", "ParityError"]


class CheckpointError(PxdbgError, ValueError):
    """A checkpoint cannot be read, or is not that of the model.

    Attributes
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"The checkpoint {path} {message}")
        self.path = path


class GraphError(PxdbgError, RuntimeError):
    """The exported graph is not a valid ONNX model."""


class ParityError(PxdbgError, RuntimeError):
    """ONNX Runtime's images of the exported graph differ from PyTorch's by too much.

    Attributes
    ----------
    max_abs_difference : float
        Largest difference of a tanh value.
    """

    def __init__(self, max_abs_difference: float, message: str) -> None:
        super().__init__(message)
        self.max_abs_difference = max_abs_difference


class FidelityError(PxdbgError, RuntimeError):
    """The digits of a graph of another precision are too far from float32's.

    Attributes
    ----------
    fidelity : Fidelity
        What was measured.
    """

    def __init__(self, fidelity: Fidelity, message: str) -> None:
        super().__init__(message)
        self.fidelity = fidelity
