"""Pin memory for copies from a GPU.

Without it the CUDA driver copies through a buffer of its own, at a quarter of the speed (docs/performance.md). Source
of the functions: CUDA driver API, ``cuMemHostRegister``.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.inference.providers import CUDA_DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["pin_memory"]

_PORTABLE: Final = 1
"""CU_MEMHOSTREGISTER_PORTABLE: pinned for all contexts of the process."""

_log = logging.getLogger(__name__)


def pin_memory(array: NDArray[np.generic], device_id: str) -> bool:
    """Pin the memory of an array as long as the array lives.

    Parameters
    ----------
    array : ndarray
        Owner of its memory.
    device_id : str
        Number of the GPU, as in the options of the CUDA provider.

    Returns
    -------
    bool
        False if there is no driver, or if it refuses: the array can be used all the same.
    """
    address, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
    try:
        with _open_context(int(device_id)) as driver:
            _check(driver.cuMemHostRegister_v2(address, size, _PORTABLE))
    except (OSError, AttributeError, ValueError) as error:
        _log.debug("%d bytes are not pinned: %s", array.nbytes, error)
        return False
    # At the end of the process the driver unpins all memory itself.
    weakref.finalize(array, _unpin, address, int(device_id)).atexit = False
    return True


def _unpin(address: ctypes.c_void_p, device_id: int) -> None:
    with suppress(OSError), _open_context(device_id) as driver:  # a fork cannot open it
        driver.cuMemHostUnregister(address)


@contextmanager
def _open_context(device_id: int) -> Iterator[ctypes.CDLL]:
    """Make the context that ONNX Runtime uses the current one of this thread."""
    driver = ctypes.CDLL(CUDA_DRIVER)
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _check(driver.cuInit(0))
    _check(driver.cuDeviceGet(ctypes.byref(device), device_id))
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
    try:
        _check(driver.cuCtxPushCurrent_v2(context))
        try:
            yield driver
        finally:
            driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(device)


def _check(code: int) -> None:
    if code:
        message = f"the CUDA driver answers with the error {code}"
        raise OSError(message)
