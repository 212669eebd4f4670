"""The wheel onnxruntime-openvino in place of onnxruntime: its provider's threads, and its name in messages.

The real wheel would overwrite the one that the other tests need.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import onnxruntime
import pytest

from pxdbg_runtime import Generator
from pxdbg_runtime.errors import ProviderError
from pxdbg_runtime.inference.providers import CPU, OPENVINO, find_onnxruntime_wheels, find_wheel, resolve_provider
from pxdbg_runtime.inference.session import ImageSession
from tests.test_session import watch_sessions, write_int8_graph

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile


@pytest.fixture
def _openvino_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wheel be installed alone: its metadata, which pip writes, and the providers that it offers."""
    metadata = tmp_path / "onnxruntime_openvino-1.24.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-openvino\nVersion: 1.24.1\n")
    (metadata / "RECORD").write_text("onnxruntime/__init__.py,,\n")
    plug_in = tmp_path / "onnxruntime_ep_openvino-1.8.1.dist-info"  # a wheel with another package
    plug_in.mkdir()
    (plug_in / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-ep-openvino\nVersion: 1.8.1\n")
    (plug_in / "RECORD").write_text("onnxruntime_ep_openvino/__init__.py,,\n")
    for package in ("onnxruntime", "onnxruntime_ep_openvino"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])


@pytest.mark.usefixtures("_openvino_wheel")
def test_the_wheel_is_named() -> None:
    assert find_onnxruntime_wheels() == {"onnxruntime-openvino": "1.24.1"}
    assert find_wheel() == "onnxruntime-openvino"
    message = (
        "The provider cuda needs onnxruntime-gpu, but onnxruntime-openvino 1.24.1 is installed: pip uninstall -y "
        "onnxruntime-openvino && pip install 'pxdbg-runtime[gpu]'."
    )
    with pytest.raises(ProviderError, match=f"^{re.escape(message)}$"):
        resolve_provider("cuda")


@pytest.mark.usefixtures("_openvino_wheel")
@pytest.mark.parametrize(
    ("nintra", "given", "expected"),
    [
        (1, {}, {"num_of_threads": "1"}),
        (3, {"num_streams": "2"}, {"num_of_threads": "3", "num_streams": "2"}),
        (3, {"num_of_threads": "2"}, {"num_of_threads": "2"}),
    ],
)
def test_openvino_takes_no_more_threads_than_asked_for(
    nintra: int,
    given: dict[str, str],
    expected: dict[str, str],
    latent_graph: GraphFile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = watch_sessions(monkeypatch, OPENVINO)
    session = ImageSession(latent_graph, provider="openvino", provider_options=given, nintra=nintra)
    assert asked == [(OPENVINO, expected)]
    assert session.provider_options == expected


@pytest.mark.usefixtures("_openvino_wheel")
def test_openvino_takes_float32_of_a_built_in_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot run the int8 graphs."""
    watch_sessions(monkeypatch, OPENVINO)
    assert Generator("resnet", seed=1, provider="openvino", verify=False).card.precision == "float32"


def test_float32_is_advised_where_a_provider_cannot_run_int8(tmp_path: Path) -> None:
    message = (
        r"Azure\S+ cannot run every node of .* Choose a float32 graph of the model, or the provider cpu if that is what"
    )
    with pytest.raises(ProviderError, match=message):
        ImageSession(write_int8_graph(tmp_path / "int8.onnx", 7), provider="azure")
