"""Fixtures that several test modules share."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Final

import pytest
import typer.main
from filelock import FileLock
from hypothesis import settings
from msgspec import structs

from pxdbg_runtime.model.builtin_models import read_manifest
from tests.conditions_server import ConditionsServer, serving
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, event_wide_model, latent_model, write_graph
from tests.made_once import find_folder
from tests.release_program import compile_release

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from pxdbg_runtime.model.graph_file import GraphFile
    from tests.release_program import ReleaseProgram

os.environ.pop("COLUMNS", None)
"""pytest-xdist sets it in its worker processes, and a console keeps the width that it starts with."""

BASF2_DOUBLE: Final = Path(__file__).resolve().parent / "basf2_double"
collect_ignore = [str(BASF2_DOUBLE), "root_reading.py"]
"""They hold no tests, and looking for doctests in them would load ROOT."""

# The first example compiles kernels, which takes seconds; the same examples every time keep a failure reproducible.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")


def keep_memory() -> None:
    """Let the C library keep what it was given: to hand out fresh memory takes the system a tenth of a run's time."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
        set_option(m_trim_threshold, 2**31 - 1)
        set_option(m_top_pad, 64 << 20)
        set_option(m_mmap_max, 0)


keep_memory()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put modules with slow tests first: one that comes last leaves the other process with nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


find_folder()
"""Before pytest-xdist starts its processes, which are to have the same."""


@pytest.fixture(scope="session", autouse=True)
def _commands_built_once() -> Iterator[None]:
    """Keep the commands that typer's runner builds of an app: for each call it would build all of them, in 40 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def _operators_registered_once() -> Iterator[None]:
    """Keep the table of operators that PyTorch's exporter builds anew for each graph, in more than a second."""
    if "torch" not in sys.modules:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        registry = "torch.onnx._internal.exporter._registration.ONNXRegistry.from_torchlib"
        patch.setattr(registry, staticmethod(cache(resolve_name(registry))))
        yield


@pytest.fixture(scope="session")
def latent_graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    """Make a tiny graph that takes latents alone."""
    return write_graph(tmp_path_factory.mktemp("latent") / "tiny.onnx", latent_model(), LATENT_CARD)


@pytest.fixture(scope="session")
def event_wide_graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    """Make a tiny graph that takes latents, sensor indices, and values of the whole event."""
    return write_graph(tmp_path_factory.mktemp("event") / "tiny-event.onnx", event_wide_model(), EVENT_WIDE_CARD)


@pytest.fixture(params=["v2", "hsf"])
def server(request: pytest.FixtureRequest) -> Iterator[ConditionsServer]:
    """Run a conditions database without faults, with either interface; a test may add faults."""
    with serving(request.param) as running:
        yield running


@pytest.fixture
def _manifest_read_anew() -> Iterator[None]:
    """Clear the cached manifest before and after a test that replaces it."""
    read_manifest.cache_clear()
    yield
    read_manifest.cache_clear()


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Import a fresh test double of basf2, which uses the real ROOT.

    Skips where ROOT is not installed, but fails there in CI, which must not lose these tests silently.
    """
    if importlib.util.find_spec("ROOT") is None:
        if os.environ.get("CI"):
            pytest.fail("ROOT is not installed, which these tests need in CI: pip install root")
        pytest.skip("ROOT is not installed: pip install root")
    names = {file.stem for file in BASF2_DOUBLE.glob("*.py")}
    monkeypatch.syspath_prepend(BASF2_DOUBLE)
    yield importlib.import_module("basf2")
    for name in names & sys.modules.keys():
        del sys.modules[name]


@pytest.fixture(scope="session")
def release() -> ReleaseProgram:
    """Compile the program that makes and reads overlay files as basf2 does, once for all processes of a run.

    Skips where a compiler or ROOT is missing, but fails there in CI.
    """
    folder = find_folder() / "overlay-release"
    with FileLock(f"{folder}.lock"):
        program = compile_release(folder)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("there is no C++ compiler, or no ROOT with rootcling, which these tests need in CI")
        pytest.skip("there is no C++ compiler, or no ROOT with rootcling: pip install root")
    return program


@pytest.fixture(scope="session")
def resnet_graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    """Make a tiny graph that calls itself a ResNet."""
    card = structs.replace(LATENT_CARD, family="resnet")
    return write_graph(tmp_path_factory.mktemp("graph") / "tiny.onnx", latent_model(), card)
