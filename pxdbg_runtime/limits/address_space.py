"""The address space of a process: batch systems limit it, and several libraries abort or hang where it ends.

``ulimit -v`` (RLIMIT_AS) counts what is reserved, used or not. NumPy's OpenBLAS reserves tens of megabytes a CPU, Arrow's
memory pool a gigabyte, glibc 64 MB a thread, and none of that is used here. So where there is a limit, they are told to
reserve less, and the room that the work needs is reserved, and freed again, before it begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import mmap
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import MemoryLimitError
from pxdbg_runtime.limits.cgroups import read_memory_limit
from pxdbg_runtime.limits.threads import count_startable_threads, read_process_limit, require_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from pxdbg_runtime.model.card import Precision

__all__ = [
    "check_room",
    "check_room_for_events",
    "check_room_for_libraries",
    "check_room_for_validation",
    "explain_memory_failure",
    "import_within_limits",
    "read_address_space_limit",
    "report_memory_errors",
    "reserve_less",
]

_MB: Final = 10**6
_SETTINGS: Final = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_M_ARENA_MAX: Final = -8
"""glibc's number of the parameter that MALLOC_ARENA_MAX sets (malloc.h)."""
_LIBRARIES_MB: Final = 420
"""ONNX Runtime, numba with LLVM and what it imports of SciPy, the smallest session, its images: measured 390 MB."""
_KERNELS_MB: Final = 130
"""What numba imports of SciPy when it compiles first, 78 MB of that; the kernels, and a second thread's stack."""
_IMAGE_MB: Final = {"int8": 40, "float16": 90, "float32": 90}
"""Activations of one image: measured 13 (ConvNet) to 37 (ResNet) in int8, 28 to 85 in float32."""
_VALIDATION_MB: Final = 750
"""Pyarrow, numba, matplotlib, SciPy, and the figures of a sample: measured 710 MB."""
_DRAWN_VALUE_BYTES: Final = 64
"""The arrays in float64 between the random bits and a value."""
_PACKAGE_MB: Final = {"pyarrow": 150, "matplotlib": 200, "scipy": 150}
"""To import a package and do with it what is done here: measured 125, 170 and 120 MB."""
_ARROW_THREADS: Final = 3
_OTHER_THREADS: Final = 16
_MANY_PROCESSES: Final = 10_000
"""Processes of a user: a limit above is no limit on a job."""
_MAX_TRIED_THREADS: Final = 64
"""An import of this package starts no more to find out; where more are needed, a limit on them counts as too low."""
_OUT_OF_MEMORY: Final = ("bad_alloc", "Failed to allocate memory", "bad allocation")
"""What ONNX Runtime's errors say then."""


def read_address_space_limit() -> int | None:
    """Find out how large the address space of this process may become; None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else int(soft)


def reserve_less() -> None:
    """Where the address space or the number of threads is limited, tell NumPy, Arrow and glibc to take less of it.

    It has to come before NumPy and pyarrow are imported. What the environment says already stays. Each OpenBLAS, NumPy's
    and SciPy's, starts a thread for each CPU, and ends the program with SIGINT if it cannot.
    """
    if not _is_limited():
        return
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if read_address_space_limit() is not None and sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


@functools.cache
def _is_limited() -> bool:
    if read_address_space_limit() is not None:
        return True
    if read_process_limit() > _MANY_PROCESSES:
        return False
    wanted = 2 * (os.cpu_count() or 1) + _OTHER_THREADS
    return wanted > _MAX_TRIED_THREADS or count_startable_threads(wanted) < wanted


def import_within_limits(module: str) -> ModuleType:
    """Import a module of an optional package, unless there is too little room for it.

    Raises
    ------
    MemoryLimitError, ThreadLimitError
        If the package is known to need more address space or threads than this process gets.
    """
    package = module.partition(".")[0]
    if not _is_limited() or package in sys.modules:
        return importlib.import_module(module)
    if package in _PACKAGE_MB:
        check_room(_PACKAGE_MB[package] * _MB, f"Importing {package}")
    if package == "pyarrow":
        require_threads(_ARROW_THREADS)
        # To read a file it would start a thread for each CPU, each with its stack.
        arrow = importlib.import_module(package)
        arrow.set_cpu_count(1)
        arrow.set_io_thread_count(1)
    return importlib.import_module(module)


@contextlib.contextmanager
def report_memory_errors(purpose: str = "") -> Iterator[None]:
    """Turn Python's, NumPy's and pyarrow's error for too little memory into ours.

    Parameters
    ----------
    purpose : str, optional
        What the memory is for, as in "to read a.npz".

    Raises
    ------
    MemoryLimitError
    """
    try:
        yield
    except MemoryLimitError:
        raise
    except MemoryError as error:
        text = " ".join(str(error).split()) or "Python could not allocate more"
        raise _memory_error(text, purpose) from error


def explain_memory_failure(error: Exception) -> MemoryLimitError | None:
    """Make an error of ours of one of ONNX Runtime's that tells of too little memory; None if it does not."""
    text = " ".join(str(error).split())
    if not any(words in text for words in _OUT_OF_MEMORY):
        return None
    return _memory_error(f"ONNX Runtime could not allocate more: {text}")


def _memory_error(text: str, purpose: str = "") -> MemoryLimitError:
    limits = {
        "address space (ulimit -v)": read_address_space_limit(),
        "cgroup's memory": read_memory_limit(),
    }
    known = " and ".join(f"{name} {_megabytes(limit)}" for name, limit in limits.items() if limit is not None)
    message = (
        f"There is not enough memory{f' {purpose}' if purpose else ''}: {text}. "
        f"{f'The limits of this job are: {known}' if known else 'No limit of this job is known'}. Take more memory, or a "
        "smaller batch_size."
    )
    return MemoryLimitError(None, message)


def check_room_for_validation() -> None:
    """Check that a page of figures can be made of samples; raises as `check_room`."""
    check_room(_VALIDATION_MB * _MB, "A validation")


def check_room_for_libraries() -> None:
    """Check that the libraries that compute events can be imported; raises as `check_room`."""
    if "numba" not in sys.modules:
        check_room(_LIBRARIES_MB * _MB, "Generating events")


def check_room_for_events(precision: Precision, batch_size: int, n_values: int) -> None:
    """Check that events can be computed on a CPU by a session that is made; raises as `check_room`.

    Parameters
    ----------
    precision : {"float32", "float16", "int8"}
    batch_size : int
        Images a call.
    n_values : int
        Random values an event.
    """
    n_bytes = (_KERNELS_MB + batch_size * _IMAGE_MB[precision]) * _MB + n_values * _DRAWN_VALUE_BYTES
    check_room(n_bytes, f"Generating events in {precision} with batch_size={batch_size}")


def check_room(n_bytes: int, purpose: str) -> None:
    """Check that so many bytes can be reserved beside what this process holds.

    Parameters
    ----------
    n_bytes : int
    purpose : str
        What needs them, as the beginning of a sentence.

    Raises
    ------
    MemoryLimitError
        If they cannot.
    """
    if _can_reserve(n_bytes):
        return
    needed = f"{purpose} needs about {_megabytes(n_bytes)} of address space more"
    limit, in_use = read_address_space_limit(), _in_use_bytes()
    if limit is None or in_use is None:
        message = f"{needed} than this system grants: free memory, or raise its limits (ulimit -d, ulimit -v)."
    else:
        total = in_use + n_bytes
        message = (
            f"{needed} than the {_megabytes(in_use)} in use, {_megabytes(total)} in all, but the limit is "
            f"{_megabytes(limit)}: raise it with ulimit -v {-(-total // 1000)} or more, or lift it with ulimit -v unlimited."
        )
    raise MemoryLimitError(n_bytes, message)


def _can_reserve(n_bytes: int) -> bool:
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows has no such limit
        return True
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        mmap.mmap(-1, n_bytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
    except (OSError, OverflowError):
        return False
    return True


def _in_use_bytes() -> int | None:
    """Size of the address space as Linux counts it; None elsewhere."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pages * mmap.PAGESIZE


def _megabytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // _MB):,} MB"
