"""Limits on the address space of a process: batch systems set them, and several libraries abort or hang at them.

``ulimit -v`` (RLIMIT_AS) counts reserved memory, used or not. NumPy's OpenBLAS reserves tens of megabytes per CPU,
Arrow's memory pool a gigabyte, glibc 64 MB per thread, and this package uses none of it. So under a limit they are
configured to reserve less, and the memory that the work needs is reserved, and freed again, before the work starts.
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

from pxdbg_runtime.errors import MemoryLimitError, one_line
from pxdbg_runtime.limits.cgroups import read_memory_limit
from pxdbg_runtime.limits.threads import count_startable_threads, read_process_limit, require_threads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = [
    "estimate_address_space",
    "estimate_process_memory",
    "explain_memory_failure",
    "import_within_limits",
    "read_address_space_limit",
    "report_memory_errors",
    "require_address_space",
    "require_address_space_for_events",
    "require_address_space_for_libraries",
    "require_address_space_for_validation",
    "reserve_less",
]

_MB: Final = 10**6
_SETTINGS: Final = {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
_M_ARENA_MAX: Final = -8
"""Number of glibc's parameter that MALLOC_ARENA_MAX sets (malloc.h)."""
_LIBRARIES_MB: Final = 120
"""ONNX Runtime and the smallest session with images: measured 75 MB."""
_START_MB: Final = 250
"""A process with NumPy, and the weights of a session while it is created: measured 115 and up to 135 MB."""
_EVENT_MB: Final = 60
"""NumPy's random numbers, the stack of a second thread and the digits: measured 45 MB."""
_IMAGE_MB: Final = {"int8": 40, "float16": 140, "float32": 140}
"""Activations of one image: measured 13 (ConvNet) to 37 (ResNet) in int8, 28 to 134 (IEA-GAN) in float32. If they are
more than that, a batch may fit but nothing after it, and OpenBLAS tries to allocate without end."""
_VALIDATION_MB: Final = 750
"""Pyarrow, numba, matplotlib, SciPy, and the figures of a sample: measured 710 MB."""
_COMPARISON_MB: Final = 250
"""Modules of scikit-learn and a comparison of 500 events: measured 240 MB."""
_DRAWN_VALUE_BYTES: Final = 64
"""Arrays in float64 for each random value."""
_PACKAGE_MB: Final = {"pyarrow": 150, "matplotlib": 200, "scipy": 150, "ROOT": 600, "sklearn": 200, "numba": 340}
"""Importing and using a package: measured 125, 170, 120, 535, 180 and 305 MB."""
_DASK_MB: Final = 150
"""Dask's worker in a process: measured 90 MB."""
_ARROW_THREADS: Final = 3
_OTHER_THREADS: Final = 16
_MANY_PROCESSES: Final = 10_000
"""A higher limit on the processes of a user does not restrict a job."""
_MAX_TRIED_THREADS: Final = 64
"""Importing this package tries no more threads; if more are needed, any limit counts as too low."""
_OUT_OF_MEMORY: Final = ("bad_alloc", "Failed to allocate memory", "bad allocation", "out of memory")
"""Words in ONNX Runtime's errors when an allocation fails."""


def read_address_space_limit() -> int | None:
    """Read the limit on the address space of this process in bytes; None if there is no limit."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else int(soft)


def reserve_less() -> None:
    """Configure NumPy, Arrow and glibc to reserve less where address space or threads are limited.

    Call it before NumPy and pyarrow are imported. Variables that are set stay. The OpenBLAS of NumPy and that of
    SciPy each start a thread per CPU, and end the program with SIGINT if they cannot.
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
    """Import a module of an optional package if there is enough address space for it.

    Raises
    ------
    MemoryLimitError, ThreadLimitError
        If the package is known to need more address space or threads than this process gets.
    """
    package = module.partition(".")[0]
    if not _is_limited() or package in sys.modules:
        return importlib.import_module(module)
    if package in _PACKAGE_MB:
        require_address_space(_PACKAGE_MB[package] * _MB, f"Importing {package}")
    if package == "pyarrow":
        require_threads(_ARROW_THREADS)
        # By default it starts a thread per CPU to read a file, each with its stack.
        arrow = importlib.import_module(package)
        arrow.set_cpu_count(1)
        arrow.set_io_thread_count(1)
    return importlib.import_module(module)


@contextlib.contextmanager
def report_memory_errors(purpose: str = "", *, has_batch: bool = False) -> Iterator[None]:
    """Turn MemoryError of Python, NumPy and pyarrow into `MemoryLimitError`.

    Parameters
    ----------
    purpose : str, optional
        What the memory was needed for, such as "to read a.npz".
    has_batch : bool
        Whether images are computed, for which a smaller batch takes less.

    Raises
    ------
    MemoryLimitError
    """
    try:
        yield
    except MemoryLimitError:
        raise
    except MemoryError as error:
        text = one_line(error) if str(error) else "Python could not allocate more"
        raise _describe_memory_error(text, purpose, has_batch=has_batch) from error


def explain_memory_failure(text: str, provider: str) -> MemoryLimitError | None:
    """Explain what ONNX Runtime says if an allocation failed, else return None.

    Parameters
    ----------
    text : str
        Its message, in one line.
    provider : str
        The execution provider. The limits of the job are those of the CPU's.
    """
    if not any(words in text for words in _OUT_OF_MEMORY):
        return None
    text = f"ONNX Runtime could not allocate more: {text}"
    if provider == "CPUExecutionProvider":
        return _describe_memory_error(text, has_batch=True)
    message = f"There is not enough memory for {provider}: {text}. Take a smaller batch_size, or the provider cpu."
    return MemoryLimitError(None, message)


def _describe_memory_error(text: str, purpose: str = "", *, has_batch: bool) -> MemoryLimitError:
    limits = {
        "address space (ulimit -v)": read_address_space_limit(),
        "cgroup's memory": read_memory_limit(),
    }
    known = " and ".join(f"{name} {_format_megabytes(limit)}" for name, limit in limits.items() if limit is not None)
    message = (
        f"There is not enough memory{f' {purpose}' if purpose else ''}: {text}. "
        f"{f'The limits of this job are: {known}' if known else 'No limit of this job is known'}. Take more "
        f"memory{', or a smaller batch_size' if has_batch else ''}."
    )
    return MemoryLimitError(None, message)


def require_address_space_for_validation(*, compares_images: bool) -> None:
    """Require the address space for a validation of samples with figures; raises as `require_address_space`.

    Parameters
    ----------
    compares_images : bool
        Whether scikit-learn compares images with those of a reference.
    """
    require_address_space((_VALIDATION_MB + compares_images * _COMPARISON_MB) * _MB, "A validation")


def require_address_space_for_libraries() -> None:
    """Require the address space for the libraries that compute events; raises as `require_address_space`."""
    if "onnxruntime" not in sys.modules:
        require_address_space(_LIBRARIES_MB * _MB, "Generating events")


def require_address_space_for_events(precision: str, batch_size: int, n_values: int) -> None:
    """Require the address space for computing events on a CPU with an existing session.

    Raises as `require_address_space`.

    Parameters
    ----------
    precision : {"float32", "float16", "int8"}
    batch_size : int
        Images per call.
    n_values : int
        Random values per event.
    """
    n_bytes = _estimate_events(precision, batch_size, n_values)
    require_address_space(n_bytes, f"Generating events in {precision} with batch_size={batch_size}")


def estimate_address_space(precision: str, batch_size: int, n_values: int) -> int:
    """Estimate the address space in bytes of a process that generates events on a CPU; parameters as above."""
    return (_START_MB + _LIBRARIES_MB) * _MB + _estimate_events(precision, batch_size, n_values)


def _estimate_events(precision: str, batch_size: int, n_values: int) -> int:
    return (_EVENT_MB + batch_size * _IMAGE_MB[precision]) * _MB + n_values * _DRAWN_VALUE_BYTES


def estimate_process_memory(precision: str, batch_size: int, n_values: int, graph_bytes: int) -> int:
    """Estimate the memory in bytes that suffices for a worker process of Dask that generates and writes events.

    The sum of the address space that each part of the work is known to need, so well above the memory in use.

    Parameters
    ----------
    precision, batch_size, n_values
        As of `require_address_space_for_events`.
    graph_bytes : int
        Size of the graph file; its weights are held twice while the session is created.
    """
    n_bytes = (_PACKAGE_MB["pyarrow"] + _DASK_MB) * _MB + 2 * graph_bytes
    return estimate_address_space(precision, batch_size, n_values) + n_bytes


def require_address_space(n_bytes: int, purpose: str) -> None:
    """Require that this process can reserve more bytes.

    Parameters
    ----------
    n_bytes : int
    purpose : str
        What needs them, as the beginning of a sentence.

    Raises
    ------
    MemoryLimitError
        If it cannot.
    """
    if _can_reserve(n_bytes):
        return
    needed = f"{purpose} needs about {_format_megabytes(n_bytes)} of address space more"
    limit, in_use = read_address_space_limit(), _read_bytes_in_use()
    total = (in_use or 0) + n_bytes
    if limit is None or in_use is None or total <= limit:
        message = f"{needed} than this system grants: free memory, or raise its limits (ulimit -d, ulimit -v)."
    else:
        message = (
            f"{needed} than the {_format_megabytes(in_use)} in use, {_format_megabytes(total)} in all, but the limit "
            f"is {_format_megabytes(limit)}: raise it with ulimit -v {-(-total // 1000)} or more, or "
            "lift it with ulimit -v unlimited."
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


def _read_bytes_in_use() -> int | None:
    """Read the size of the address space from Linux; None on other systems."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pages * mmap.PAGESIZE


def _format_megabytes(n_bytes: int) -> str:
    return f"{-(-n_bytes // _MB):,} MB"
