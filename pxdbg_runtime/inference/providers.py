"""Execution providers: which ones ONNX Runtime offers and loads here, and why others do not.

This module alone imports ONNX Runtime and knows the names of its providers.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import os
import re
import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import BrokenPackageError, MissingPackageError, ProviderError, one_line
from pxdbg_runtime.optional_imports import IMPORT_FAILURES, describe_import_failure, is_missing, parse_version

if TYPE_CHECKING:
    from types import ModuleType

    from pxdbg_runtime.model.card import Target

__all__ = [
    "AZURE",
    "AZURE_REMARK",
    "CPU",
    "CUDA",
    "CUDA_DRIVER",
    "OLDEST_RELEASE",
    "OPENVINO",
    "describe_onnxruntime_error",
    "explain_load_failure",
    "explain_not_offered",
    "explain_too_new",
    "explain_unusable",
    "find_onnxruntime_wheels",
    "find_wheel",
    "guess_target",
    "import_onnxruntime",
    "resolve_provider",
]

CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
OPENVINO: Final = "OpenVINOExecutionProvider"
AZURE: Final = "AzureExecutionProvider"
AZURE_REMARK: Final = "comes with ONNX Runtime and runs no graph of ours: nothing to do"
"""It calls models on servers, by operators of its own."""
CUDA_DRIVER: Final = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""The library of NVIDIA's driver."""
OLDEST_RELEASE: Final = (1, 21)
"""Oldest ONNX Runtime that pyproject.toml admits."""
_TOO_NEW: Final = re.compile(
    r"Unsupported model IR version: \d+, max supported IR version: \d+|"
    r"Opset \d+ is under development|Current official support for domain \S+ is till opset \d+"
)
_UNKNOWN_OPERATOR: Final = re.compile(r"No Op registered for \S+|\S+ is not a registered function/op")
"""Messages of ONNX Runtime about a newer graph, and about an unknown operator, which may also be misspelt."""
_SOURCE_LOCATION: Final = re.compile(
    r"\S+\.(?:cc|cpp|cu|h|hpp):\d+ "  # file and line
    # The function, with its parameters and template arguments.
    r"(?:[^()]*::[^()]*\((?:[^()]|\([^()]*\))*\)(?:::<lambda\([^()]*\)>)?(?: const)?(?: \[with [^\]]*\])? ?)?"
    r"|\b(?:file|line|expr)=[^;]*;"
)
_MISSING_LIBRARY: Final = re.compile(r"LD_LIBRARY_PATH|cannot open shared object file|Failed to load library")
_NO_USABLE_GPU: Final = re.compile(r"CUDA failure (?:34|35|36|46|100|209|222|802|803|804|999): [^;]*[^; ]")
"""CUDA's errors that concern its driver and the GPUs, from cudaErrorStubLibrary to cudaErrorUnknown (driver_types.h);
not that memory is used up (2), that a fork inherited CUDA (3), or that there is no such ``device_id`` (101)."""
_SUFFIX: Final = "ExecutionProvider"
_MODULE: Final = "onnxruntime"
_NEEDED: Final = ("InferenceSession", "RunOptions", "SessionOptions", "__version__", "get_available_providers")
"""Names that a complete ONNX Runtime has; an empty folder or a script of the same name lacks them."""
_CPU_WHEEL: Final = "onnxruntime"
_GPU_WHEEL: Final = "onnxruntime-gpu"
_INSTALL_CPU: Final = "pip install 'pxdbg-runtime[cpu]'"
_INSTALL_GPU: Final = "pip install 'pxdbg-runtime[gpu]'"


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime, its telemetry off unless the environment says otherwise.

    From 1.29 on it reports sessions, with the names and hashes of their graphs, to its maker, which a simulation job
    must not do unasked. Set ``ORT_DISABLE_TELEMETRY`` yourself to decide.

    Raises
    ------
    MissingPackageError
        If no wheel of it is installed.
    BrokenPackageError
        If it does not import, is incomplete, or is older than `OLDEST_RELEASE`.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        module = importlib.import_module(_MODULE)
    except IMPORT_FAILURES as error:
        if is_missing(_MODULE, error):
            message = (
                f"Running a graph needs ONNX Runtime, which is not installed: {_INSTALL_CPU} for a CPU, or "
                f"{_INSTALL_GPU} for an NVIDIA GPU."
            )
            raise MissingPackageError(_MODULE, "cpu", message) from None
        reason = f"it does not import ({describe_import_failure(error)})"
        raise _describe_breakage(reason) from error
    lacking = [name for name in _NEEDED if not hasattr(module, name)]
    if lacking:
        place = module.__file__ or ", ".join(module.__path__)
        reason = f"{place} lacks {', '.join(lacking)}"
        raise _describe_breakage(reason)
    _check_release(str(module.__version__))
    return module


def _describe_breakage(reason: str) -> BrokenPackageError:
    """Describe what is wrong with the installed ONNX Runtime, and how to install it again."""
    wheels = find_onnxruntime_wheels()
    installed = " and ".join(f"{wheel} {version}" for wheel, version in wheels.items()) or "no wheel that pip knows"
    extra, install = ("gpu", _INSTALL_GPU) if _GPU_WHEEL in wheels else ("cpu", _INSTALL_CPU)
    names = " ".join(dict.fromkeys((_CPU_WHEEL, _GPU_WHEEL, *wheels)))
    message = (
        f"ONNX Runtime is installed, but does not work: {reason}. Found {installed}"
        f"{', which overwrite each other' if len(wheels) > 1 else ''}. Install it again: pip uninstall -y {names} && "
        f"{install}."
    )
    return BrokenPackageError(_MODULE, extra, message)


def _check_release(version: str) -> None:
    if parse_version(version) >= OLDEST_RELEASE:
        return
    wheel, oldest = find_wheel(), ".".join(map(str, OLDEST_RELEASE))
    message = (
        f"ONNX Runtime {version} is too old: expected {oldest} or newer; upgrade: pip install -U '{wheel}>={oldest}'."
    )
    raise BrokenPackageError(_MODULE, "gpu" if wheel == _GPU_WHEEL else "cpu", message)


def find_wheel() -> str:
    """Find the name of the installed ONNX Runtime wheel; that of the CPU wheel if there is none."""
    wheels = find_onnxruntime_wheels()
    return _GPU_WHEEL if _GPU_WHEEL in wheels else next(iter(wheels), _CPU_WHEEL)


def describe_onnxruntime_error(error: Exception) -> str:
    """Write ONNX Runtime's message in one line, without its C++ source paths and function signatures."""
    return " ".join(_SOURCE_LOCATION.sub("", one_line(error)).split())


def explain_too_new(refusal: str, exported_with: str | None) -> str | None:
    """Explain that a graph needs a newer ONNX Runtime, if it was refused for that; else None.

    Parameters
    ----------
    refusal : str
        ONNX Runtime's message.
    exported_with : str or None
        The version of ONNX Runtime with which the graph was exported and checked.
    """
    version = str(import_onnxruntime().__version__)
    is_older = exported_with is not None and parse_version(version) < parse_version(exported_with)
    found = _TOO_NEW.search(refusal) or (_UNKNOWN_OPERATOR.search(refusal) if is_older else None)
    if found is None:
        return None
    origin = f"it was exported with {exported_with}; " if is_older else ""
    return (
        f"it needs a newer ONNX Runtime than the installed {version} ({found[0]}): {origin}upgrade: pip install -U "
        f"{find_wheel()}"
    )


def find_onnxruntime_wheels() -> dict[str, str]:
    """Find the installed wheels of ONNX Runtime and their versions: onnxruntime-openvino is one too."""
    found = {}
    others = (_read_name(each) for each in importlib.metadata.distributions() if _holds_onnxruntime(each))
    for wheel in (_CPU_WHEEL, _GPU_WHEEL, *others):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[wheel] = importlib.metadata.version(wheel) or "of an unknown version"  # None for a damaged wheel
    return found


def _holds_onnxruntime(wheel: importlib.metadata.Distribution) -> bool:
    """Tell whether a wheel is one of ONNX Runtime, by its name first: to list the files of all would take a second."""
    return _read_name(wheel).startswith(_MODULE) and any(file.parts[0] == _MODULE for file in wheel.files or ())


def _read_name(wheel: importlib.metadata.Distribution) -> str:
    """Read the name of a wheel; empty if it has no metadata."""
    try:
        return str((wheel.metadata.get_all("Name") or [""])[0])
    except FileNotFoundError:  # of the package importlib_metadata, which takes the place of Python's own
        return ""


def resolve_provider(provider: str) -> str:
    """Find ONNX Runtime's name of a provider that the installed wheel offers.

    Parameters
    ----------
    provider : str
        ``cpu``, ``cuda``, or any other by its name, with or without ``ExecutionProvider``, in any case.

    Raises
    ------
    ProviderError
        If the installed wheel does not offer it; the message says why and what to install.
    """
    offered = import_onnxruntime().get_available_providers()
    for name in offered:
        if provider.lower() in (name.lower(), name.removesuffix(_SUFFIX).lower()):
            return str(name)
    raise ProviderError(provider, explain_not_offered(provider, tuple(offered)))


def guess_target(provider: object) -> Target | None:
    """Guess the execution provider of a session before it is created, to choose the graph; None if it is another."""
    wanted = provider.lower() if isinstance(provider, str) else ""  # which the session refuses
    if wanted in ("cuda", CUDA.lower()):
        return "cuda"
    if wanted != "auto":
        return "cpu" if wanted in ("cpu", CPU.lower()) else None
    has_cuda = CUDA in import_onnxruntime().get_available_providers() and explain_unusable(CUDA) is None
    return "cuda" if has_cuda else "cpu"


def explain_not_offered(provider: str, offered: tuple[str, ...]) -> str:
    """Explain why the installed ONNX Runtime does not offer a provider, and what to do."""
    wheels = find_onnxruntime_wheels()
    installed = ", ".join(f"{wheel} {version}" for wheel, version in wheels.items())
    if provider.lower() in ("cuda", CUDA.lower()):
        names = " ".join(wheels) or _CPU_WHEEL
        if _GPU_WHEEL in wheels and len(wheels) > 1:
            return (
                f"The provider cuda is hidden: {installed} are installed in one place, and another wheel's files "
                f"overwrite the GPU wheel's. Uninstall all and install one: pip uninstall -y {names} && {_INSTALL_GPU}."
            )
        return (
            f"The provider cuda needs {_GPU_WHEEL}, but {installed or 'another build'} is installed: pip uninstall -y "
            f"{names} && {_INSTALL_GPU}."
        )
    return (
        f"The provider {provider!r} is not one of those that the installed ONNX Runtime ({installed or 'own build'}) "
        f"offers: expected auto, {', '.join(name.removesuffix(_SUFFIX).lower() for name in offered)}."
    )


def explain_unusable(name: str) -> str | None:
    """Explain why an offered provider cannot work here; None if nothing is known against it.

    For CUDA this loads the libraries that ``pxdbg-runtime[gpu]`` installs, which a session needs. It leaves the
    provider's own library to ONNX Runtime: loaded earlier, that library would not find its host.
    """
    if name != CUDA:
        return None
    # It prints what it cannot load, which `explain_load_failure` reports once: a copy sees another `print`.
    preload = import_onnxruntime().preload_dlls
    names = {**preload.__globals__, "print": lambda *_: None}
    FunctionType(preload.__code__, names, argdefs=preload.__defaults__, closure=preload.__closure__)()
    if _find_library(CUDA) is None:
        return None  # another system names the library differently; the session will report an error
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return (
            f"there is no NVIDIA driver here ({CUDA_DRIVER} does not load): run on a machine with a GPU and its driver"
        )
    return None


def explain_load_failure(name: str, refusal: Exception | None = None) -> str | None:
    """Explain why a provider does not load: its libraries do not, or it finds no GPU; None if nothing is known.

    Call it only after ONNX Runtime tried the provider: loaded earlier, the provider's library would not find its host.

    Parameters
    ----------
    name : str
        ONNX Runtime's name of the provider.
    refusal : Exception, optional
        What ONNX Runtime raised.
    """
    library = _find_library(name)
    try:
        if library is not None:
            ctypes.CDLL(str(library))
    except OSError as error:
        action = f"{_INSTALL_GPU} brings CUDA and cuDNN" if name == CUDA else "install them, or use another provider"
        return f"its libraries do not load ({error}): {action}"
    if refusal is None:
        return None
    no_gpu = _NO_USABLE_GPU.search(str(refusal))
    if no_gpu is not None:
        return f"it finds no GPU that it can use ({no_gpu[0]}): check the driver (nvidia-smi) and CUDA_VISIBLE_DEVICES"
    return describe_onnxruntime_error(refusal).removesuffix(".") if _MISSING_LIBRARY.search(str(refusal)) else None


def _find_library(name: str) -> Path | None:
    """Find the shared library of a provider beside ONNX Runtime; None if the provider has none, or not on Linux."""
    file_name = f"libonnxruntime_providers_{name.removesuffix(_SUFFIX).lower()}.so"
    library = Path(import_onnxruntime().__file__ or "").parent / "capi" / file_name
    return library if library.exists() else None
