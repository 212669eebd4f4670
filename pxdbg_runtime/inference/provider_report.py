"""Report which execution providers run a graph on this machine, by trying each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pxdbg_runtime.errors import InferenceError, MemoryLimitError, ProviderError, ThreadLimitError
from pxdbg_runtime.inference.providers import CUDA, explain_not_offered, import_onnxruntime
from pxdbg_runtime.inference.session import ImageSession

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["ProviderState", "ProviderStatus", "list_provider_statuses"]

ProviderState = Literal["runs", "does not run", "not installed"]


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """Whether an execution provider runs graphs on this machine.

    Attributes
    ----------
    name : str
        ONNX Runtime's name of the provider.
    state : {"runs", "does not run", "not installed"}
    remark : str
        Why it does not run and what to do; empty if it runs.
    """

    name: str
    state: ProviderState
    remark: str


def list_provider_statuses(graph: GraphFile) -> tuple[ProviderStatus, ...]:
    """Create a session of a graph on each offered provider, and explain what to do if CUDA is not offered.

    Raises
    ------
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    offered = tuple(import_onnxruntime().get_available_providers())
    statuses = [_try_provider(graph, name) for name in offered]
    if CUDA not in offered:
        remark = explain_not_offered("cuda", offered)
        statuses.append(ProviderStatus(name=CUDA, state="not installed", remark=remark))
    return tuple(statuses)


def _try_provider(graph: GraphFile, name: str) -> ProviderStatus:
    try:
        ImageSession(graph, provider=name)
    except (ProviderError, InferenceError, MemoryLimitError, ThreadLimitError) as error:
        return ProviderStatus(name=name, state="does not run", remark=str(error))
    return ProviderStatus(name=name, state="runs", remark="")
