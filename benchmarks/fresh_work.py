"""What runs in a process of its own; every function imports what it needs, and takes and gives plain values."""

from __future__ import annotations

import importlib
import time
from pathlib import Path

__all__ = ["imports", "original", "our_imports", "ours", "plain"]


def imports(*modules: str) -> tuple[float, ...]:
    """Import modules."""
    for module in modules:
        importlib.import_module(module)
    return ()


def our_imports() -> tuple[float, ...]:
    """Import all that a generator imports when it is made, and give the seconds."""
    start = time.perf_counter()
    imports("pxdbg_runtime", "pxdbg_runtime.digitisation.digitiser", "pxdbg_runtime.inference.session")
    from pxdbg_runtime.inference.providers import import_onnxruntime

    import_onnxruntime()
    return (time.perf_counter() - start,)


def ours(graph: str) -> tuple[float, ...]:
    """Make an event from a graph, and give the seconds of the imports, of the session, and of the first event."""
    (imports_s,) = our_imports()
    from pxdbg_runtime import Generator

    start = time.perf_counter()
    generator = Generator(Path(graph), provider="cpu", seed=7)
    ready = time.perf_counter()
    generator.generate(0)
    return imports_s, ready - start, time.perf_counter() - ready


def plain(graph: str) -> tuple[float, ...]:
    """Run a graph over the forty images of an event in batches, as a peer does."""
    from benchmarks.events import session_run
    from pxdbg_runtime.inference.session import ImageSession
    from pxdbg_runtime.model.graph_file import read_graph_file

    read = read_graph_file(Path(graph))
    session, card = ImageSession(read, provider="cpu"), read.card
    del read  # with its content, which a generator does not keep either
    return session_run(session, card)()


def original(checkpoint: str, family: str) -> tuple[float, ...]:
    """Make an event as the original does."""
    from benchmarks.pytorch_peers import original_event
    from export.checkpoint import load_checkpoint

    original_event(load_checkpoint(Path(checkpoint), family))
    return ()
