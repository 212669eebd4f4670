"""The graph that runs is the one whose SHA-256 is given, whatever another process does to its file meanwhile."""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from onnx import numpy_helper

import pxdbg_runtime.generator as generator_module
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import GraphFileError
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.model.graph_file import GraphFile

DRAWS: Final = {"latent": np.full((40, 2), 3, dtype=np.float32)}
N_READINGS: Final = 60
MAX_REFUSALS: Final = 10_000
"""Readings of files that were half written: about one in two."""

READY: Final = """
import os, sys, time
first, second, target = sys.argv[1:]
contents = [open(name, "rb").read() for name in (first, second)]
print("ready", flush=True)
"""
REPLACE: Final = f"""{READY}
while True:
    for content in contents:
        with open(target + ".new", "wb") as file:
            file.write(content)
        os.replace(target + ".new", target)
"""
REWRITE: Final = f"""{READY}
while True:
    for content in contents:
        with open(target, "r+b", buffering=0) as file:
            half = len(content) // 2
            file.write(content[:half])
            file.write(content[half:])
        time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[GraphFile, GraphFile]:
    """Make two graphs of the same length and card that give other images."""
    folder = tmp_path_factory.mktemp("graphs")
    other = latent_model()
    (slope,) = (each for each in other.graph.initializer if each.name == "v_profile")
    slope.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(slope) * np.float32(0.5), "v_profile"))
    return (
        write_graph(folder / "one.onnx", latent_model(), LATENT_CARD),
        write_graph(folder / "other.onnx", other, LATENT_CARD),
    )


@pytest.fixture
def changing(request: pytest.FixtureRequest, graphs: tuple[GraphFile, GraphFile], tmp_path: Path) -> Iterator[Path]:
    """Let another process change a file for as long as the test runs."""
    target = tmp_path / "graph.onnx"
    shutil.copy(graphs[0].path, target)
    command = [sys.executable, "-c", request.param, *(str(graph.path) for graph in graphs), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield target
        assert process.poll() is None
        process.kill()


def compute_image(graph: GraphFile) -> NDArray[np.float32] | NDArray[np.uint8]:
    return ImageSession(graph, provider="cpu").compute_images(range(1), DRAWS)


@pytest.mark.parametrize(
    "changing", [pytest.param(REPLACE, id="replaced"), pytest.param(REWRITE, id="rewritten")], indirect=True
)
def test_a_file_that_another_process_changes(changing: Path, graphs: tuple[GraphFile, GraphFile]) -> None:
    expected = {graph.sha256: compute_image(graph) for graph in graphs}
    one, other = expected.values()
    assert not np.array_equal(one, other)
    seen: list[str] = []
    refusals: list[str] = []
    while len(seen) < N_READINGS and len(refusals) < MAX_REFUSALS:
        try:
            graph = read_graph_file(changing)
        except GraphFileError as error:  # it was read while it was half written
            refusals.append(str(error))
            continue
        seen.append(graph.sha256)
        assert np.array_equal(compute_image(graph), expected[graph.sha256])
    assert len(seen) == N_READINGS
    assert set(seen) <= expected.keys()
    assert all("does not match its digest" in refusal for refusal in refusals)


def test_a_file_that_changes_after_it_was_read(graphs: tuple[GraphFile, GraphFile], tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    expected = compute_image(graphs[0])
    for change in ("replaced", "rewritten", "cut", "removed"):
        shutil.copy(graphs[0].path, path)
        graph = read_graph_file(path)
        if change == "replaced":
            shutil.copy(graphs[1].path, tmp_path / "new.onnx")
            (tmp_path / "new.onnx").replace(path)
        elif change == "rewritten":
            path.write_bytes(graphs[1].content)
        elif change == "cut":
            path.write_bytes(b"")
        else:
            path.unlink()
        assert graph.sha256 == graphs[0].sha256
        assert np.array_equal(compute_image(graph), expected)


def test_a_generator_keeps_no_copy_of_its_graph(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    contents: list[bytes] = []

    def read(path: Path, *_: object) -> GraphFile:
        graph = read_graph_file(path)
        contents.append(graph.content)
        return graph

    monkeypatch.setattr(generator_module, "find_graph", read)
    generator = Generator(latent_graph.path, seed=1, provider="cpu")
    gc.collect()
    references = sys.getrefcount(contents[0])
    assert references == 2  # the list, and the call itself
    assert generator.graph_sha256 == latent_graph.sha256
