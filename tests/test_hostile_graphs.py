"""Graphs that someone wrote to do harm: each ends with one sentence, soon, and takes no memory with it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest
from onnx import TensorProto, helper

from pxdbg_runtime import Generator
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.model.builtin_models import find_artifacts_folder, read_manifest
from pxdbg_runtime.model.graph_file import append_card, read_graph_file
from tests.graphs import LATENT_CARD, latent_model
from tests.hostile_graphs import HOSTILE, add_nodes, write_hostile_graph

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

QUICK_S: Final = 30.0
MAX_MORE_KIB: Final = 500_000
MAX_MESSAGE_CHARACTERS: Final = 2000
"""With the path, which is long here."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_ends_with_a_sentence(name: str, tmp_path: Path) -> None:
    path = write_hostile_graph(tmp_path / "graph.onnx", name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(PxdbgError, match=HOSTILE[name][1]) as caught:
        Generator(path, seed=1, provider="cpu", verify=False).generate(0, sensors=["1.1.1"])
    assert time.monotonic() - start < QUICK_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MAX_MORE_KIB
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < MAX_MESSAGE_CHARACTERS


def test_built_in_graphs_have_no_functions() -> None:
    """So that a graph which has some may be refused."""
    for listed in read_manifest():
        assert read_graph_file(find_artifacts_folder() / listed.file).sha256 == listed.sha256


def build_endless_loop() -> onnx.ModelProto:
    model = latent_model()
    number, goes_on, value = (
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("c", TensorProto.BOOL), ("v", TensorProto.FLOAT))
    )
    outputs = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("next_c", TensorProto.BOOL), ("next_v", TensorProto.FLOAT))
    ]
    nodes = [helper.make_node("Identity", [name], [f"next_{name}"]) for name in "cv"]
    body = helper.make_graph(nodes, "body", [number, goes_on, value], outputs)
    loop = helper.make_node("Loop", ["many", "yes", "zero"], ["harm"], body=body)
    add_nodes(model, loop, constants={"many": 2**62, "yes": True, "zero": 0.0})
    for tensor in model.graph.initializer:
        if tensor.name == "zero":  # NumPy's zero is a float64
            tensor.CopyFrom(helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]))
    return model


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_a_signal_ends_an_endless_loop(tmp_path: Path) -> None:
    """No check of a graph can tell whether it ends: whoever runs it, or the batch system, ends it."""
    path = tmp_path / "endless.onnx"
    path.write_bytes(append_card(build_endless_loop().SerializeToString(), LATENT_CARD))
    command = [
        sys.executable,
        "-m",
        "pxdbg_runtime",
        "generate",
        "--model",
        str(path),
        "--output",
        str(tmp_path / "bg.npz"),
    ]
    with subprocess.Popen([*command, "--no-verify"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline()]
        while lines[-1] and "events: 0/1" not in lines[-1]:
            lines.append(process.stderr.readline())
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        assert "was stopped by SIGTERM: nothing was written" in process.stderr.read()
    sha256 = read_graph_file(path).sha256
    assert any(re.search(rf"endless\.onnx is a graph of your own, .* SHA-256 {sha256}", line) for line in lines)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["endless.onnx"]
