"""Complete arguments in a shell."""

from __future__ import annotations

from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.formats import FORMATS
from pxdbg_runtime.model.builtin_models import read_manifest

__all__ = ["complete_format", "complete_model"]


def complete_model(incomplete: str) -> list[str]:
    """List the built-in models whose names begin with what was typed; shells complete paths themselves."""
    try:
        names = sorted({graph.name for graph in read_manifest()})
    except PxdbgError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_format(incomplete: str) -> list[str]:
    """List the formats of digit files whose names begin with what was typed."""
    return [name for name in FORMATS if name.startswith(incomplete)]
