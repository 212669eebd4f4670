"""Sessions where ONNX Runtime offers CUDA and its driver finds no GPU: only ``auto`` takes the CPU, with a warning."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final

import onnxruntime
import pytest

from pxdbg_runtime import Generator
from pxdbg_runtime.errors import InferenceError, MemoryLimitError, ProviderError
from pxdbg_runtime.inference.providers import CPU, CUDA
from pxdbg_runtime.inference.session import ImageSession
from tests.test_session import offer_cuda

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime.model.graph_file import GraphFile

CALL: Final = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:{} std::conditional_t<THRW, void, "
    "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, "
    "const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, "
    "void, common::Status> = void] "
)
REFUSAL: Final = (
    CALL.format(122) + CALL.format(114) + "{} ; GPU=-1 ; hostname=c4327188c000000 ; file=/onnxruntime_src/onnxruntime/"
    "core/providers/cuda/cuda_execution_provider.cc ; line=336 ; expr=cudaSetDevice(info_.device_id); \n"
)
"""As ONNX Runtime writes it, with the failure of CUDA in the middle."""
NO_DEVICE: Final = "CUDA failure 100: no CUDA-capable device is detected"
OLD_DRIVER: Final = "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version"


@pytest.fixture
def refuse_cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give a function after which CUDA is offered and each session on it fails in one way."""
    real = onnxruntime.InferenceSession

    def refuse(failure: str) -> None:
        def create(content: bytes, options: Any, *, providers: list[Any], **others: Any) -> object:  # noqa: ANN401
            if providers[0][0] == CUDA:
                raise RuntimeError(REFUSAL.format(failure))
            return real(content, options, providers=providers, **others)

        monkeypatch.setattr(onnxruntime, "InferenceSession", create)

    offer_cuda(monkeypatch)
    monkeypatch.setattr("pxdbg_runtime.inference.providers.explain_unusable", lambda _: None)
    return refuse


@pytest.mark.parametrize("failure", [NO_DEVICE, OLD_DRIVER])
def test_auto_takes_the_cpu_and_cuda_is_an_error(
    latent_graph: GraphFile, refuse_cuda: Callable[[str], None], caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    refuse_cuda(failure)
    reason = (
        f"{CUDA} cannot run here: it finds no GPU that it can use ({failure}): check the driver (nvidia-smi) and "
        "CUDA_VISIBLE_DEVICES."
    )
    assert Generator(latent_graph.path, seed=1).provider == CPU
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"provider auto chose {CPU}: {reason}"]
    with pytest.raises(ProviderError, match=f"^{re.escape(reason)}$") as caught:
        Generator(latent_graph.path, seed=1, provider="cuda")
    assert caught.value.provider == CUDA


@pytest.mark.parametrize("provider", ["auto", "cuda"])
@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ("CUDA failure 2: out of memory", MemoryLimitError),
        ("CUDA failure 3: initialization error", InferenceError),
        ("CUDA failure 101: invalid device ordinal", InferenceError),
    ],
)
def test_other_failures_of_cuda_are_errors_of_auto_too(
    latent_graph: GraphFile, refuse_cuda: Callable[[str], None], failure: str, error: type[Exception], provider: str
) -> None:
    refuse_cuda(failure)
    with pytest.raises(error, match=failure):
        ImageSession(latent_graph, provider=provider)
