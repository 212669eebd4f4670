"""What can go wrong at export, each with the built-in exception that a caller would expect as a base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.errors import PxdbgError

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.card import Fidelity

__all__ = ["CheckpointError", "ConditionsError", "FidelityError", "GraphError", "ParityError", "ServerError"]


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


class ConditionsError(PxdbgError, RuntimeError):
    """The conditions database has no payload that can be used, or none of its servers could be asked."""


class ServerError(ConditionsError):
    """One server of the conditions database failed, or gave what it must not give; another one may do better.

    Attributes
    ----------
    status : int or None
        HTTP status of its answer, where that is what was wrong.
    is_passing : bool
        Whether the same request may succeed if it is made again.
    """

    def __init__(self, message: str, *, status: int | None = None, is_passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_passing = is_passing
