"""Name the device of an execution provider: the model of the CPU or GPU."""

from __future__ import annotations

import ctypes
import hashlib
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.inference.providers import CPU, CUDA, CUDA_DRIVER

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["name_device"]

_NAME_LENGTH: Final = 256


def name_device(provider: str, options: Mapping[str, str]) -> str | None:
    """Name the CPU or GPU that a provider computes on.

    Parameters
    ----------
    provider : str
        ONNX Runtime's name of the provider.
    options : mapping of str to str
        Options of the provider; ``device_id`` selects the GPU.

    Returns
    -------
    str or None
        For the CPU its model and a digest of its instruction sets, since a virtual machine may hide some; for CUDA
        the model of the GPU and the newest CUDA that its driver is for; None if unknown.
    """
    if provider == CPU:
        cpu = detect_cpu()
        if cpu.name == "unknown":
            return None
        features = hashlib.sha256(" ".join(sorted(cpu.features)).encode()).hexdigest()[:16]
        return f"{cpu.name}, features {features}"
    return _read_gpu_name(options.get("device_id", "0")) if provider == CUDA else None


def _read_gpu_name(device_id: str) -> str | None:
    """Query the CUDA driver, which the provider has already loaded."""
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
        number = int(device_id)
    except (OSError, ValueError):
        return None
    device, version = ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_LENGTH)
    failed = (
        driver.cuInit(0)
        or driver.cuDriverGetVersion(ctypes.byref(version))
        or driver.cuDeviceGet(ctypes.byref(device), number)
        or driver.cuDeviceGetName(name, _NAME_LENGTH, device)
    )
    if failed:
        return None
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return f"{name.value.decode(errors='replace')}, driver for CUDA {cuda}"
