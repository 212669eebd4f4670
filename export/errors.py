"""Exceptions of the export, each a subclass of the built-in exception that a caller would expect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.errors import PxdbgError

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.card import Fidelity

__all__ = ["CheckpointError", "ConditionsError", "FidelityError", "GraphError", "ParityError", "ServerError"]


class CheckpointError(PxdbgError, ValueError):
    """A checkpoint cannot be read, or belongs to another family.

    Pass its ``--family``; if it holds several models, ``--state-key`` takes one. The message names the keys that do
    not fit.

    Attributes
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"The checkpoint {path} {message}")
        self.path = path


class GraphError(PxdbgError, RuntimeError):
    """A graph cannot be built, or is not valid.

    Install the versions of PyTorch, onnx and onnxscript that pyproject.toml admits. If they are, please report it.
    """

    docs_section = "export.md#what-is-checked"


class ParityError(PxdbgError, RuntimeError):
    """The images of the exported graph differ from PyTorch's by too much.

    Do not use the graph: it is not written. Try another release of ONNX Runtime, and report it with the message.

    Attributes
    ----------
    max_abs_difference : float
        Largest difference of a tanh value.
    """

    docs_section = "export.md#what-is-checked"

    def __init__(self, max_abs_difference: float, message: str) -> None:
        super().__init__(message)
        self.max_abs_difference = max_abs_difference


class FidelityError(PxdbgError, RuntimeError):
    """The digits of a float16 or int8 graph are too far from float32's.

    Use float32, or write the graph all the same by ``--accept-beyond-bounds`` and judge its digits by ``pxdbg
    validate``.

    Attributes
    ----------
    fidelity : Fidelity
        W1 of the charge spectra, ratio of the occupancies and share of identical digits, as on a card.
    """

    docs_section = "export.md#what-is-checked"

    def __init__(self, fidelity: Fidelity, message: str) -> None:
        super().__init__(message)
        self.fidelity = fidelity


class ConditionsError(PxdbgError, RuntimeError):
    """The conditions database has no usable payload, or none of its servers answers.

    Correct the global tag, the experiment or the run; name another source by ``--server``.
    """

    docs_section = "conditions.md#sources"


class ServerError(ConditionsError):
    """One server of the conditions database failed or sent an invalid answer; another server may succeed.

    Nothing, if another source is left: it is tried next.

    Attributes
    ----------
    status : int or None
        HTTP status of the answer, if that is the failure.
    is_passing : bool
        Whether a repeated request may succeed.
    """

    def __init__(self, message: str, *, status: int | None = None, is_passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_passing = is_passing
