"""The status of each execution provider, found by running a tiny graph on it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import onnxruntime
import pytest
from msgspec import structs
from onnx import helper

from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.inference import provider_report, providers, session
from pxdbg_runtime.inference.provider_report import ProviderStatus, list_provider_statuses
from pxdbg_runtime.inference.providers import AZURE, CPU, CUDA
from tests.graphs import LATENT_CARD, build_model, write_graph

if TYPE_CHECKING:
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile


def report(graph: GraphFile) -> dict[str, ProviderStatus]:
    statuses = list_provider_statuses([graph])
    by_name = {status.name: status for status in statuses}
    assert len(by_name) == len(statuses)
    return by_name


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let ONNX Runtime offer other providers than it does."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def test_every_offered_provider_is_there(latent_graph: GraphFile) -> None:
    assert set(report(latent_graph)) == {*onnxruntime.get_available_providers(), CUDA}


def test_the_cpu_runs(latent_graph: GraphFile, event_wide_graph: GraphFile) -> None:
    for graph in (latent_graph, event_wide_graph):
        assert report(graph)[CPU] == ProviderStatus(name=CPU, state="runs", remark="")


def test_azure_is_nothing_to_worry_about(latent_graph: GraphFile) -> None:
    remark = "comes with ONNX Runtime and runs no graph of ours: nothing to do"
    assert report(latent_graph)[AZURE] == ProviderStatus(name=AZURE, state="does not run", remark=remark)


def test_a_provider_that_runs_no_node_says_so(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_report, "AZURE", "another")
    status = report(latent_graph)[AZURE]
    assert status.state == "does not run"
    assert status.remark.startswith(f"{AZURE} cannot run every node of {latent_graph.path}")
    assert "Choose the provider cpu if that is what you want." in status.remark


def test_cuda_that_is_not_installed_says_what_to_install(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CPU)
    assert list_provider_statuses([latent_graph]) == (
        ProviderStatus(name=CPU, state="runs", remark=""),
        ProviderStatus(name=CUDA, state="not installed", remark=providers.explain_not_offered("cuda", (CPU,))),
    )


def test_cuda_that_does_not_load_says_why(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, CUDA, CPU)
    monkeypatch.setattr(
        session, "explain_unusable", lambda name: "there is no NVIDIA driver here" if name == CUDA else None
    )
    cuda, cpu = list_provider_statuses([latent_graph])
    expected = f"{CUDA} cannot run here: there is no NVIDIA driver here."
    assert cuda == ProviderStatus(name=CUDA, state="does not run", remark=expected)
    assert cpu.state == "runs"


def test_a_provider_without_its_libraries_is_reported_without_source_paths(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt = "TensorrtExecutionProvider"
    create_session = onnxruntime.InferenceSession

    def refuse(*arguments: Any, providers: list[tuple[str, dict[str, str]]], **options: Any) -> object:  # noqa: ANN401
        if providers[0][0] == tensorrt:
            message = (
                "/src/python/state.cc:729 void onnxruntime::python::Register(Options&, const Map&) Please install the "
                "libraries, and make sure they're in the PATH or LD_LIBRARY_PATH."
            )
            raise RuntimeError(message)
        return create_session(*arguments, providers=providers, **options)

    offer(monkeypatch, tensorrt, CPU)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    statuses = report(latent_graph)
    assert statuses[CPU].state == "runs"
    expected = "Please install the libraries, and make sure they're in the PATH or LD_LIBRARY_PATH."
    assert statuses[tensorrt] == ProviderStatus(
        name=tensorrt, state="does not run", remark=f"{tensorrt} cannot run here: {expected}"
    )


def test_a_provider_without_memory_or_threads_leaves_the_others_in_the_report(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_session = onnxruntime.InferenceSession

    def refuse(*arguments: Any, providers: list[tuple[str, dict[str, str]]], **options: Any) -> object:  # noqa: ANN401
        if providers[0][0] == CUDA:
            message = "/onnxruntime/core/framework/bfc_arena.cc:376 Failed to allocate memory for 7 bytes"
            raise RuntimeError(message)
        return create_session(*arguments, providers=providers, **options)

    offer(monkeypatch, CUDA, CPU)
    monkeypatch.setattr(session, "explain_unusable", lambda _: None)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    statuses = report(latent_graph)
    assert statuses[CPU].state == "runs"
    assert statuses[CUDA].state == "does not run"
    assert statuses[CUDA].remark.startswith(f"There is not enough memory for {CUDA}: ONNX Runtime could not")
    assert ".cc" not in statuses[CUDA].remark


@pytest.mark.slow
def test_a_graph_that_is_refused(tmp_path: Path) -> None:
    model = build_model([helper.make_node("NoSuchOperator", ["z"], ["images"])], {"z": ("n", 2)}, "images")
    graph = write_graph(tmp_path / "refused.onnx", model, LATENT_CARD)
    status = report(graph)[CPU]
    assert status.state == "does not run"
    assert "created no session for" in status.remark
    assert "NoSuchOperator" in status.remark


def test_a_provider_that_runs_some_graphs_says_which(
    latent_graph: GraphFile, event_wide_graph: GraphFile, tmp_path: Path
) -> None:
    model = build_model([helper.make_node("NoSuchOperator", ["z"], ["images"])], {"z": ("n", 2)}, "images")
    refused = write_graph(tmp_path / "refused.onnx", model, structs.replace(LATENT_CARD, name="new"))
    statuses = list_provider_statuses([latent_graph, refused, event_wide_graph])
    status = next(each for each in statuses if each.name == CPU)
    first, last = latent_graph.card.name, event_wide_graph.card.name
    assert status.state == "runs some"
    assert status.remark.startswith(
        f"runs only {first} and {last}. Others: ONNX Runtime created no session for {refused.path}"
    )


def test_without_onnx_runtime(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"not installed: pip install 'pxdbg-runtime\[cpu\]'"):
        list_provider_statuses([latent_graph])
