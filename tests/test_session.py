"""Sessions: the provider that was asked for runs the whole graph, or there is an error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from msgspec import structs

import pxdbg_runtime.inference.session as session_module
from export.graph import append_charges
from pxdbg_runtime.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    InferenceError,
    MemoryLimitError,
    ProviderError,
)
from pxdbg_runtime.inference.cpu import Cpu
from pxdbg_runtime.inference.providers import CPU, CUDA
from pxdbg_runtime.inference.session import ImageSession
from tests.graphs import FIDELITY, LATENT_CARD, THRESHOLDS, event_wide_images, latent_images, latent_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Precision
    from pxdbg_runtime.model.graph_file import GraphFile

AZURE: Final = "AzureExecutionProvider"
"""Every CPU wheel for Linux offers it, and it runs no node of a graph like ours."""


@pytest.fixture(scope="module")
def draws() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(8)
    return {name: rng.normal(size=(40, n)).astype(np.float32) for name, n in (("latent", 2), ("mood", 3))}


def offer_cuda(monkeypatch: pytest.MonkeyPatch, obstacle: str | None = None) -> None:
    """Let ONNX Runtime say that it offers CUDA, as the GPU wheel does on any machine."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(session_module, "explain_unusable", lambda name: obstacle if name == CUDA else None)


def watch_sessions(monkeypatch: pytest.MonkeyPatch, provider: str) -> list[object]:
    """Create sessions that ask for a provider on the CPU, and collect the providers that they ask for."""
    asked: list[object] = []
    real = onnxruntime.InferenceSession

    def watch(content: bytes, options: onnxruntime.SessionOptions, *, providers: list[object], **_: object) -> object:
        assert options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1"
        asked.extend(providers)
        return real(content, onnxruntime.SessionOptions(), providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", watch)
    monkeypatch.setattr(real, "get_providers", lambda _: [provider, CPU])
    return asked


@pytest.fixture
def cuda_providers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    offer_cuda(monkeypatch)
    return watch_sessions(monkeypatch, CUDA)


def raise_always(error: Exception) -> Callable[..., None]:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("sensors", [range(40), range(3), range(17, 18), range(35, 40)], ids=str)
@pytest.mark.parametrize("provider", ["cpu", "auto", CPU, "CPU"])
def test_images_are_those_of_the_sensors_asked_for(
    sensors: range, provider: str, latent_graph: GraphFile, draws: dict[str, NDArray[np.float32]]
) -> None:
    session = ImageSession(latent_graph, provider=provider)
    assert session.provider == CPU
    images = session.compute_images(sensors, draws)
    assert images.dtype == np.float32
    assert np.array_equal(images, latent_images(draws["latent"])[sensors.start : sensors.stop])


@pytest.mark.parametrize(
    ("sensors", "nintra", "ninter"),
    [(range(40), 1, 1), (range(1), 1, 1), (range(11, 29), 1, 1), (range(5), 2, 1), (range(5), 1, 2), (range(5), 2, 2)],
)
def test_inputs_of_all_roles_are_fed_by_the_card_with_any_number_of_threads(
    sensors: range, nintra: int, ninter: int, event_wide_graph: GraphFile, draws: dict[str, NDArray[np.float32]]
) -> None:
    images = ImageSession(event_wide_graph, nintra=nintra, ninter=ninter).compute_images(sensors, draws)
    expected = event_wide_images(draws["latent"], draws["mood"])
    assert np.array_equal(images, expected[sensors.start : sensors.stop])


@pytest.mark.parametrize("provider", ["azure", AZURE])
def test_a_provider_that_cannot_run_the_graph_does_not_leave_it_to_the_cpu(
    provider: str, latent_graph: GraphFile
) -> None:
    message = rf"{AZURE} cannot run every node of .*tiny\.onnx.* Choose the provider cpu if that is what you want\."
    with pytest.raises(ProviderError, match=message) as caught:
        ImageSession(latent_graph, provider=provider)
    assert caught.value.provider == AZURE


def test_a_provider_that_onnx_runtime_dropped_is_an_error(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["OtherExecutionProvider", CPU])
    message = f"{CPU} cannot run here: it did not load; ONNX Runtime would run on OtherExecutionProvider"
    with pytest.raises(ProviderError, match=message):
        ImageSession(latent_graph, provider="cpu")


def test_what_does_not_load_is_named_after_onnx_runtime_tried(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(*_: object, **__: object) -> None:
        tried.append("session")
        message = "fallback to CPU EP has been explicitly disabled"
        raise RuntimeError(message)

    def diagnose(_: str, error: Exception) -> str:
        assert "fallback" in str(error)
        tried.append("diagnosis")
        return "libcublas does not load"

    offer_cuda(monkeypatch)
    monkeypatch.setattr(session_module, "explain_load_failure", diagnose)
    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ProviderError, match=rf"^{CUDA} cannot run here: libcublas does not load\.$"):
        ImageSession(latent_graph, provider="cuda")
    assert tried == ["session", "diagnosis"]


def test_cuda_that_does_not_load_is_an_error(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_cuda(monkeypatch, "there is no driver")
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider cannot run here: there is no driver\.") as caught:
        ImageSession(latent_graph, provider="cuda")
    assert caught.value.provider == CUDA


@pytest.mark.parametrize("provider", ["tpu", "x" * 100])
def test_an_unknown_provider_is_told_which_there_are(provider: str, latent_graph: GraphFile) -> None:
    with pytest.raises(ProviderError, match=rf"The provider '{provider}' is not one of .* expected auto, .*cpu"):
        ImageSession(latent_graph, provider=provider)


@pytest.mark.parametrize("provider", [3, None, ["cpu"], b"cpu"])
def test_a_provider_that_is_no_name_is_refused(provider: object, latent_graph: GraphFile) -> None:
    message = "provider must be the name of an execution provider, but is"
    with pytest.raises(ArgumentTypeError, match=message) as caught:
        ImageSession(latent_graph, provider=provider)  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == "provider"


def test_auto_says_that_it_chose_the_cpu_and_why(latent_graph: GraphFile, caplog: pytest.LogCaptureFixture) -> None:
    session = ImageSession(latent_graph, provider="auto")
    assert session.provider == CPU
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == f"provider auto chose {CPU}: the installed ONNX Runtime does not offer CUDA"


def test_auto_warns_if_cuda_is_offered_and_does_not_load(
    latent_graph: GraphFile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_cuda(monkeypatch, "there is no driver")
    assert ImageSession(latent_graph, provider="auto").provider == CPU
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"provider auto chose {CPU}: {CUDA} cannot run here: there is no driver."


@pytest.mark.usefixtures("cuda_providers")
def test_auto_says_that_it_chose_cuda(latent_graph: GraphFile, caplog: pytest.LogCaptureFixture) -> None:
    assert ImageSession(latent_graph, provider="auto").provider == CUDA
    assert caplog.messages == [f"provider auto chose {CUDA}"]


@pytest.mark.parametrize("argument", ["nintra", "ninter"])
@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        *((n, ArgumentValueError, f"between 1 and 4096 threads, but is {n}") for n in (0, -1, 4097, 2**31, 2**40)),
        (1.5, ArgumentTypeError, r"an integer, but is 1\.5 \(float\)"),
    ],
)
def test_a_wrong_number_of_threads_is_refused(
    argument: str,
    count: float,
    error: type[ArgumentTypeError | ArgumentValueError],
    message: str,
    latent_graph: GraphFile,
) -> None:
    with pytest.raises(error, match=rf"^{argument} must (lie |be ){message}\.$") as caught:
        ImageSession(latent_graph, **{argument: count})  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == argument


@pytest.mark.parametrize("options", [3, "abc", ["a"], {0: "device_id"}, {"device_id": None}])
def test_provider_options_that_are_no_texts_are_refused(options: object, latent_graph: GraphFile) -> None:
    with pytest.raises(ArgumentTypeError, match="provider_options must be") as caught:
        ImageSession(latent_graph, provider_options=options)  # type: ignore[arg-type]  # the point of the test
    assert caught.value.argument == "provider_options"


def test_provider_options_reach_onnx_runtime(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    real = onnxruntime.InferenceSession

    def create_and_watch(*arguments: object, providers: list[object], enable_fallback: int) -> object:
        given.extend(providers)
        return real(*arguments, providers=providers, enable_fallback=enable_fallback)

    monkeypatch.setattr(onnxruntime, "InferenceSession", create_and_watch)
    ImageSession(latent_graph, provider="cpu", provider_options={"some_option": "7"})
    assert given == [(CPU, {"some_option": "7"})]


@pytest.mark.parametrize(
    ("precision", "given", "expected"),
    [
        ("float32", {}, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}),
        ("float16", {}, {"cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "1", "fuse_conv_bias": "1"}),
        ("float16", {"prefer_nhwc": "0"}, {"cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": "0"}),
        ("float32", {"use_tf32": "1"}, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "1"}),
        ("float16", {"cudnn_conv_algo_search": "DEFAULT", "prefer_nhwc": "0"}, None),
    ],
)
def test_cuda_is_told_to_compute_the_same_each_time(
    tmp_path: Path,
    cuda_providers: list[object],
    precision: Precision,
    given: dict[str, str],
    expected: dict[str, str] | None,
) -> None:
    fidelity = None if precision == "float32" else FIDELITY
    card = structs.replace(LATENT_CARD, precision=precision, target="cuda", fidelity=fidelity)
    graph = write_graph(tmp_path / "tiny.onnx", latent_model(), card)
    session = ImageSession(graph, provider="cuda", provider_options=given)
    assert cuda_providers == [(CUDA, expected or given)]
    assert session.provider_options == (expected or given)


@pytest.mark.parametrize(("ninter", "mode"), [(1, "ORT_SEQUENTIAL"), (np.int64(3), "ORT_PARALLEL")])
def test_numbers_of_threads_reach_onnx_runtime_and_threads_do_not_spin(
    ninter: int, mode: str, latent_graph: GraphFile
) -> None:
    nintra = cast("int", np.int64(2))
    options = ImageSession(latent_graph, nintra=nintra, ninter=ninter)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, ninter)
    assert options.execution_mode.name == mode
    for pool in ("intra_op", "inter_op"):
        assert options.get_session_config_entry(f"session.{pool}.allow_spinning") == "0"


def test_provider_options_that_onnx_runtime_refuses_are_named(
    latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = RuntimeError("Unknown provider option:\n  'colour'.")
    monkeypatch.setattr(onnxruntime, "InferenceSession", raise_always(refusal))
    message = (
        rf"created no session for .* on {CPU}: Unknown provider option: 'colour'\. "
        r"\(provider_options: {'colour': 'red'}\)"
    )
    with pytest.raises(InferenceError, match=message) as caught:
        ImageSession(latent_graph, provider_options={"colour": "red"})
    assert caught.value.__cause__ is refusal


NO_MEMORY: Final = r"^There is not enough memory: ONNX Runtime could not allocate more: {}\. "


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("A kernel\n failed", InferenceError, rf"ONNX Runtime failed to run .*tiny\.onnx on {CPU}: A kernel failed"),
        (
            "/onnxruntime/core/framework/bfc_arena.cc:376 Failed to allocate\n memory for 7 bytes",
            MemoryLimitError,
            NO_MEMORY.format("Failed to allocate memory for 7 bytes"),
        ),
        ("Exception: std::bad_alloc", MemoryLimitError, NO_MEMORY.format("Exception: std::bad_alloc")),
    ],
)
def test_a_run_that_fails_is_an_error_of_ours(
    latent_graph: GraphFile,
    draws: dict[str, NDArray[np.float32]],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    error: type[Exception],
    message: str,
) -> None:
    session = ImageSession(latent_graph)
    failure = onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException(text)
    monkeypatch.setattr(session._session, "run_with_iobinding", raise_always(failure))
    with pytest.raises(error, match=message) as caught:
        session.compute_images(range(2), draws)
    assert caught.value.__cause__ is failure


def test_memory_that_onnx_runtime_does_not_get_is_an_error_of_ours(
    latent_graph: GraphFile, draws: dict[str, NDArray[np.float32]], monkeypatch: pytest.MonkeyPatch
) -> None:
    session, failure = ImageSession(latent_graph), MemoryError("std::bad_alloc")
    monkeypatch.setattr(session._session, "run_with_iobinding", raise_always(failure))
    monkeypatch.setattr(onnxruntime, "InferenceSession", raise_always(failure))
    for use in (lambda: session.compute_images(range(2), draws), lambda: ImageSession(latent_graph)):
        with pytest.raises(MemoryLimitError, match=r"^There is not enough memory: std::bad_alloc\. ") as caught:
            use()
        assert caught.value.__cause__ is failure


def test_images_of_another_number_than_sensors_are_refused(
    tmp_path: Path, draws: dict[str, NDArray[np.float32]]
) -> None:
    model = latent_model()
    (last,) = (node for node in model.graph.node if "images" in node.output)
    last.output[0] = "all"
    for name, value in (("start", [0]), ("end", [1])):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
    model.graph.node.append(onnx.helper.make_node("Slice", ["all", "start", "end"], ["images"]))
    session = ImageSession(write_graph(tmp_path / "first.onnx", model, LATENT_CARD))
    assert session.compute_images(range(1), draws).shape == (1, 250, 768)
    with pytest.raises(InferenceError, match=r"ONNX Runtime failed to run .*first\.onnx on CPU"):
        session.compute_images(range(2), draws)


def test_images_are_written_into_the_buffer(latent_graph: GraphFile, draws: dict[str, NDArray[np.float32]]) -> None:
    session = ImageSession(latent_graph)
    buffer = session.allocate_images(3)
    buffer[:] = 7
    images = session.compute_images(range(5, 7), draws, buffer)
    assert np.shares_memory(images, buffer)
    assert np.array_equal(buffer[:2], latent_images(draws["latent"][5:7]))
    assert np.all(buffer[2] == 7)
    again = session.compute_images(range(5, 7), draws)
    assert not np.shares_memory(again, buffer)
    assert np.array_equal(again, images)


def test_a_graph_that_gives_charges(tmp_path: Path, draws: dict[str, NDArray[np.float32]]) -> None:
    model = append_charges(latent_model(), np.array(THRESHOLDS, dtype=np.float32))
    card = structs.replace(LATENT_CARD, output_kind="charges")
    session = ImageSession(write_graph(tmp_path / "charges.onnx", model, card))
    images = session.compute_images(range(2), draws)
    expected = np.searchsorted(np.array(THRESHOLDS, np.float32), latent_images(draws["latent"][:2]), side="right")
    assert images.dtype == np.uint8
    assert np.array_equal(images, expected)
    with pytest.raises(InferenceError, match=r"expected 'images', uint8 of shape"):
        ImageSession(write_graph(tmp_path / "values.onnx", latent_model(), card))


def write_int8_graph(path: Path, weight_bits: int) -> GraphFile:
    card = structs.replace(LATENT_CARD, precision="int8", weight_bits=weight_bits, fidelity=FIDELITY)
    return write_graph(path, latent_model(), card)


def test_weights_of_eight_bits_need_a_cpu_that_does_not_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seven, eight = (write_int8_graph(tmp_path / f"{bits}.onnx", bits) for bits in (7, 8))
    for name, dot_products, obstacle in (
        ("Old One", (), r"This CPU \(Old One\) has neither VNNI \(x86\) nor .*: use a float32 graph .*--weight-bits 7"),
        ("A Mac", None, r"Whether this CPU \(A Mac\) has VNNI is not known on this system"),
    ):
        cpu = Cpu(name=name, dot_products=dot_products, features=frozenset())
        monkeypatch.setattr(session_module, "detect_cpu", lambda cpu=cpu: cpu)
        assert ImageSession(seven).provider == CPU
        message = rf"8 bits, whose products saturate on a CPU without VNNI\. {obstacle}"
        with pytest.raises(ProviderError, match=message) as caught:
            ImageSession(eight)
        assert caught.value.provider == CPU
    cpu = Cpu(name="New One", dot_products=("avx512_vnni",), features=frozenset())
    monkeypatch.setattr(session_module, "detect_cpu", lambda: cpu)
    assert ImageSession(eight).provider == CPU


def test_auto_leaves_int8_graphs_to_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offer_cuda(monkeypatch)
    with caplog.at_level(logging.INFO, logger="pxdbg_runtime"):
        assert ImageSession(write_int8_graph(tmp_path / "int8.onnx", 7)).provider == CPU
    assert caplog.messages == [f"provider auto chose {CPU}: int8 graphs are for the CPU"]
