"""What each execution provider is good for on this machine, found out by trying."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pxdbg_runtime.errors import InferenceError, ProviderError
from pxdbg_runtime.inference.providers import CUDA, explain_not_offered, import_onnxruntime
from pxdbg_runtime.inference.session import ImageSession

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["ProviderState", "ProviderStatus", "list_provider_statuses"]

ProviderState = Literal["runs", "does not run", "not installed"]


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """What one execution provider is good for on this machine.

    Attributes
    ----------
    name : str
        ONNX Runtime's name for it.
    state : {"runs", "does not run", "not installed"}
    remark : str
        Why not and what to do, or empty.
    """

    name: str
    state: ProviderState
    remark: str


def list_provider_statuses(graph: GraphFile) -> tuple[ProviderStatus, ...]:
    """Make a session of a graph on each provider that is offered, and say of CUDA what to do if it is not.

    Raises
    ------
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    offered = tuple(import_onnxruntime().get_available_providers())
    statuses = [_tried(graph, name) for name in offered]
    if CUDA not in offered:
        remark = explain_not_offered("cuda", offered)
        statuses.append(ProviderStatus(name=CUDA, state="not installed", remark=remark))
    return tuple(statuses)


def _tried(graph: GraphFile, name: str) -> ProviderStatus:
    try:
        ImageSession(graph, provider=name)
    except (ProviderError, InferenceError) as error:
        return ProviderStatus(name=name, state="does not run", remark=str(error))
    return ProviderStatus(name=name, state="runs", remark="")
