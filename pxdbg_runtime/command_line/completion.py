"""Complete arguments in a shell."""

from __future__ import annotations

from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.model.builtin_models import read_manifest

__all__ = ["complete_model"]


def complete_model(incomplete: str) -> list[str]:
    """List the built-in models whose names begin with what was typed; shells complete paths themselves."""
    try:
        names = sorted({graph.name for graph in read_manifest()})
    except PxdbgError:
        return []
    return [name for name in names if name.startswith(incomplete)]
