"""Execution providers: which there are, why one is not there, and what to install."""

from __future__ import annotations

import builtins
import ctypes
import itertools
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import onnxruntime
import pytest

from pxdbg_runtime.errors import ProviderError
from pxdbg_runtime.inference import providers
from pxdbg_runtime.inference.providers import (
    CPU,
    CUDA,
    describe_onnxruntime_error,
    explain_load_failure,
    explain_not_offered,
    explain_unusable,
    find_onnxruntime_wheels,
    resolve_provider,
)

BLOCKED: Final = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")
sys.meta_path.insert(0, Blocker())
from pxdbg_runtime import Generator
from pxdbg_runtime.errors import MissingPackageError
try:
    Generator("resnet", seed=1)
except MissingPackageError as error:
    print(error.package, error.extra, isinstance(error, ImportError))
    print(error)
"""

TENSORRT: Final = "TensorrtExecutionProvider"
CUDA_LIBRARY: Final = "libonnxruntime_providers_cuda.so"
TENSORRT_LIBRARY: Final = "libonnxruntime_providers_tensorrt.so"


def offer(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(names))


def install(monkeypatch: pytest.MonkeyPatch, **wheels: str) -> None:
    named = {wheel.replace("_", "-"): version for wheel, version in wheels.items()}
    monkeypatch.setattr(providers, "find_onnxruntime_wheels", lambda: named)


def test_without_onnx_runtime_both_extras_are_named() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=True)
    fields, message = done.stdout.splitlines()
    assert fields == "onnxruntime cpu True"
    assert message == (
        "Running a graph needs ONNX Runtime, which is not installed: pip install 'pxdbg-runtime[cpu]' for a CPU, or "
        "pip install 'pxdbg-runtime[gpu]' for an NVIDIA GPU."
    )


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")])
def test_telemetry_is_off_unless_the_environment_decides(given: dict[str, str], expected: str) -> None:
    script = (
        "import os\nfrom pxdbg_runtime.inference.providers import import_onnxruntime\nimport_onnxruntime()\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | given
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == expected


def test_the_installed_wheels_are_found() -> None:
    assert onnxruntime.__version__ in find_onnxruntime_wheels().values()
    assert set(find_onnxruntime_wheels()) <= {"onnxruntime", "onnxruntime-gpu"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, CPU) for name in ("cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider")),
        ("cuda", CUDA),
        ("tensorrt", TENSORRT),
    ],
)
def test_an_offered_provider_is_found_by_either_name_in_any_case(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, CUDA, TENSORRT, CPU)
    assert resolve_provider(name) == expected


@pytest.mark.parametrize("name", ["", "c", "gpu", "CPUExecution", "auto", "cpu ", "ExecutionProvider"])
def test_a_provider_that_is_not_offered_is_told_which_are(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "AzureExecutionProvider", CPU)
    install(monkeypatch, onnxruntime="1.99.0")
    message = (
        rf"The provider '{name}' is not one of .*ONNX Runtime \(onnxruntime 1\.99\.0\) offers: expected auto, azure, "
        r"cpu\.$"
    )
    with pytest.raises(ProviderError, match=message) as caught:
        resolve_provider(name)
    assert caught.value.provider == name


INSTALL: Final = r"&& pip install 'pxdbg-runtime\[gpu\]'\.$"


@pytest.mark.parametrize("name", ["cuda", "CUDA", CUDA])
@pytest.mark.parametrize(
    ("wheels", "message"),
    [
        (
            {"onnxruntime": "1.99.0"},
            rf"needs onnxruntime-gpu, but onnxruntime 1\.99\.0 is installed: pip uninstall -y onnxruntime {INSTALL}",
        ),
        (
            {"onnxruntime": "1.99.0", "onnxruntime_gpu": "1.98.0"},
            (
                r"is hidden: onnxruntime 1\.99\.0, onnxruntime-gpu 1\.98\.0 are installed in one place, and another "
                rf"wheel's files overwrite the GPU wheel's\. .* pip uninstall -y onnxruntime onnxruntime-gpu {INSTALL}"
            ),
        ),
        ({}, rf"needs onnxruntime-gpu, but another build is installed: pip uninstall -y onnxruntime {INSTALL}"),
    ],
    ids=["CPU wheel", "both wheels", "own build"],
)
def test_cuda_that_is_not_offered_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, name: str, wheels: dict[str, str], message: str
) -> None:
    offer(monkeypatch, CPU)
    install(monkeypatch, **wheels)
    with pytest.raises(ProviderError, match=f"^The provider cuda {message}"):
        resolve_provider(name)


def test_a_build_without_a_wheel_is_called_own_build(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert "installed ONNX Runtime (own build) offers: expected auto, cpu." in explain_not_offered("rocm", (CPU,))


@pytest.fixture
def gpu_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the installed ONNX Runtime look like that of the GPU wheel; return the folder of its libraries."""
    folder = tmp_path / "capi"
    folder.mkdir()
    for name in (CUDA_LIBRARY, TENSORRT_LIBRARY):
        (folder / name).touch()
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load"), raising=False)  # noqa: T201
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    return folder


def load_all_but(broken: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let libraries load but for one, and list the names of those that were asked for."""
    asked: list[str] = []

    def load(name: str) -> None:
        asked.append(Path(name).name)
        if name.endswith(broken):
            message = "no such library"
            raise OSError(message)

    monkeypatch.setattr(ctypes, "CDLL", load)
    return asked


@pytest.mark.usefixtures("gpu_wheel")
def test_without_a_driver_cuda_is_in_vain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    load_all_but("libcuda.so.1", monkeypatch)
    assert "there is no NVIDIA driver here" in (explain_unusable(CUDA) or "")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("gpu_wheel")
def test_what_others_print_while_cuda_is_looked_for_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both_look, first_is_out = threading.Barrier(2), threading.Event()
    order = itertools.count()

    def preload() -> None:
        is_first = next(order) == 0
        both_look.wait(10)
        builtins.print("another thread")  # noqa: T201
        if not is_first:
            first_is_out.wait(0.2)
        print("Failed to load")  # noqa: T201

    def look_for_cuda(_: int) -> None:
        explain_unusable(CUDA)
        first_is_out.set()

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(look_for_cuda, range(2)))
    assert capsys.readouterr().out == "another thread\n" * 2


def test_a_wheel_without_metadata_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "half-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert onnxruntime.__version__ in find_onnxruntime_wheels().values()
    assert not recwarn.list


@pytest.mark.usefixtures("gpu_wheel")
def test_the_library_of_cuda_is_left_to_onnx_runtime_until_it_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load_all_but(CUDA_LIBRARY, monkeypatch)
    assert explain_unusable(CUDA) is None
    assert CUDA_LIBRARY not in asked
    assert "its libraries do not load (no such library): pip install" in (explain_load_failure(CUDA) or "")


@pytest.mark.usefixtures("gpu_wheel")
def test_nothing_is_found_out_where_everything_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load_all_but("none", monkeypatch)
    assert explain_load_failure(CUDA) is None
    assert asked == [CUDA_LIBRARY]


def test_nothing_is_known_where_there_is_no_library(gpu_wheel: Path) -> None:
    for name in (CUDA_LIBRARY, TENSORRT_LIBRARY):
        (gpu_wheel / name).unlink()
    for provider in (CPU, "AzureExecutionProvider", CUDA):
        assert explain_unusable(provider) is None
        assert explain_load_failure(provider) is None


@pytest.mark.usefixtures("gpu_wheel")
def test_missing_libraries_of_another_provider_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load_all_but(TENSORRT_LIBRARY, monkeypatch)
    expected = "its libraries do not load (no such library): install them, or use another provider"
    assert explain_load_failure(TENSORRT) == expected


PLEASE_INSTALL: Final = (
    "Please install TensorRT libraries as mentioned in the GPU requirements page, make sure they're in the PATH or "
    "LD_LIBRARY_PATH, and that your GPU is supported."
)
TENSORRT_SOURCE: Final = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void onnxruntime::python::"
    "RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const onnxruntime::ProviderOptions&) "
)


def test_a_message_about_missing_libraries_explains_a_load_failure() -> None:
    error = RuntimeError(f"{TENSORRT_SOURCE}{PLEASE_INSTALL}")
    assert explain_load_failure(TENSORRT, error) == PLEASE_INSTALL.removesuffix(".")
    assert explain_load_failure(TENSORRT, RuntimeError("another error")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{TENSORRT_SOURCE}{PLEASE_INSTALL}\n", PLEASE_INSTALL),
        (
            (
                "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 "
                "std::conditional_t<THRW, void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, "
                "const char*, int) "
                "[with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError] CUDA failure 100: no "
                "CUDA-capable device is "
                "detected ; GPU=-1 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_allocator.cc ; "
                "line=20 ; "
                "expr=cudaSetDevice(0); "
            ),
            "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ;",
        ),
        ("/a/b.cc:7 Unknown provider option (colour)", "Unknown provider option (colour)"),
        ("/a/b.h:7 static T onnxruntime::Get<T>(std::function<void(int)>, U) const Message.", "Message."),
        (
            "Load model from /models/a.cc failed:\n Protobuf parsing failed.",
            "Load model from /models/a.cc failed: Protobuf parsing failed.",
        ),
    ],
)
def test_a_message_of_onnx_runtime_loses_its_source_locations(text: str, expected: str) -> None:
    assert describe_onnxruntime_error(RuntimeError(text)) == expected


@pytest.mark.parametrize(
    ("provider", "offered", "obstacle", "target"),
    [
        ("cuda", [CPU], None, "cuda"),
        ("CUDAExecutionProvider", [CPU], None, "cuda"),
        ("cpu", [CUDA, CPU], None, "cpu"),
        ("auto", [CPU], None, "cpu"),
        ("Auto", [CUDA, CPU], None, "cuda"),
        ("auto", [CUDA, CPU], "no driver", "cpu"),
        ("openvino", [CUDA, CPU], None, None),
        (CPU, [CUDA, CPU], None, "cpu"),
        (3, [CPU], None, None),
    ],
)
def test_a_graph_is_chosen_for_the_provider_that_will_likely_run_it(
    monkeypatch: pytest.MonkeyPatch, provider: object, offered: list[str], obstacle: str | None, target: str | None
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
    monkeypatch.setattr(providers, "explain_unusable", lambda _: obstacle)
    assert providers.guess_target(provider) == target


@pytest.mark.parametrize("provider", ["cpu", CPU, "tensorrt", 3])
def test_cuda_is_loaded_only_where_it_may_be_chosen(monkeypatch: pytest.MonkeyPatch, provider: object) -> None:
    offer(monkeypatch, CUDA, CPU)
    monkeypatch.setattr(providers, "explain_unusable", lambda _: pytest.fail("CUDA is loaded"))
    assert providers.guess_target(provider) != "cuda"
