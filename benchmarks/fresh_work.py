"""Functions that run in a new process: each imports what it needs, takes strings and returns numbers."""

from __future__ import annotations

import importlib
import time
from pathlib import Path


def import_modules(*modules: str) -> tuple[float, ...]:
    """Import modules."""
    for module in modules:
        importlib.import_module(module)
    return ()


def import_runtime() -> tuple[float, ...]:
    """Import all that creating a generator imports, and return the seconds."""
    start = time.perf_counter()
    import_modules("pxdbg_runtime", "pxdbg_runtime.digitisation.digitiser", "pxdbg_runtime.inference.session")
    from pxdbg_runtime.inference.providers import import_onnxruntime

    import_onnxruntime()
    return (time.perf_counter() - start,)


def generate_event(graph: str) -> tuple[float, ...]:
    """Generate an event, and return the seconds of the imports, of the session, and of the event."""
    (imports_s,) = import_runtime()
    from pxdbg_runtime import Generator

    start = time.perf_counter()
    generator = Generator(Path(graph), provider="cpu", seed=7)
    ready = time.perf_counter()
    generator.generate(0)
    return imports_s, ready - start, time.perf_counter() - ready


def run_graph(graph: str) -> tuple[float, ...]:
    """Compute the images of an event in batches, as a peer does, and return the seconds."""
    from benchmarks.events import time_graph
    from pxdbg_runtime.model.graph_file import read_graph_file

    return time_graph(read_graph_file(Path(graph)))()  # whose content is not kept


def generate_original_event(checkpoint: str, family: str) -> tuple[float, ...]:
    """Generate an event as the original does."""
    from benchmarks import pytorch_peers
    from export.checkpoint import load_checkpoint

    pytorch_peers.generate_original_event(load_checkpoint(Path(checkpoint), family), family)
    return ()
