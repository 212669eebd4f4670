"""Report which execution providers run graphs on this machine, by trying each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pxdbg_runtime.errors import InferenceError, MemoryLimitError, ProviderError, ThreadLimitError
from pxdbg_runtime.inference.providers import AZURE, AZURE_REMARK, CUDA, explain_not_offered, import_onnxruntime
from pxdbg_runtime.inference.session import ImageSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["ProviderState", "ProviderStatus", "list_provider_statuses"]

ProviderState = Literal["runs", "runs some", "does not run", "not installed"]


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """Whether an execution provider runs graphs on this machine.

    Attributes
    ----------
    name : str
        ONNX Runtime's name of the provider.
    state : {"runs", "runs some", "does not run", "not installed"}
        Of the graphs that were tried.
    remark : str
        Why it does not run the first that it does not, and what to do; empty if it runs all.
    """

    name: str
    state: ProviderState
    remark: str


def list_provider_statuses(graphs: Sequence[GraphFile]) -> tuple[ProviderStatus, ...]:
    """Create a session of each graph on each offered provider, and explain what to do if CUDA is not offered.

    Raises
    ------
    MissingPackageError
        If ONNX Runtime is not installed.
    """
    offered = tuple(import_onnxruntime().get_available_providers())
    statuses = [_try_provider(graphs, name) for name in offered]
    if CUDA not in offered:
        remark = explain_not_offered("cuda", offered)
        statuses.append(ProviderStatus(name=CUDA, state="not installed", remark=remark))
    return tuple(statuses)


def _try_provider(graphs: Sequence[GraphFile], name: str) -> ProviderStatus:
    if name == AZURE:
        return ProviderStatus(name=name, state="does not run", remark=AZURE_REMARK)
    refusals: dict[str, str] = {}
    for graph in graphs:
        try:
            ImageSession(graph, provider=name)
        except (ProviderError, InferenceError, MemoryLimitError, ThreadLimitError) as error:
            refusals[graph.card.name] = str(error)
    if not refusals:
        return ProviderStatus(name=name, state="runs", remark="")
    first = next(iter(refusals.values()))
    running = [graph.card.name for graph in graphs if graph.card.name not in refusals]
    if not running:
        return ProviderStatus(name=name, state="does not run", remark=first)
    return ProviderStatus(name=name, state="runs some", remark=f"runs only {' and '.join(running)}. Others: {first}")
