"""Find out what the installation, the CPU and the limits of this job allow."""

from __future__ import annotations

import ctypes
import functools
import platform
import tempfile
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.diagnosis.extras import find_version
from pxdbg_runtime.diagnosis.finding import Finding
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.inference.cpu import detect_cpu
from pxdbg_runtime.inference.providers import (
    CUDA,
    CUDA_DRIVER,
    explain_not_offered,
    find_onnxruntime_wheels,
    import_onnxruntime,
)
from pxdbg_runtime.limits.address_space import (
    estimate_address_space,
    read_address_space_limit,
    require_address_space_for_libraries,
)
from pxdbg_runtime.limits.cgroups import read_memory_limit
from pxdbg_runtime.limits.threads import count_job_cpus, prepare_threads
from pxdbg_runtime.optional_imports import parse_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pxdbg_runtime.diagnosis.extras import Requirement

__all__ = ["diagnose_cache", "diagnose_installation", "diagnose_job", "diagnose_memory"]

_MB: Final = 10**6
_CACHE_BYTES: Final = 500_000
"""About what the compiled kernels take."""


def diagnose_installation(requirements: Iterable[Requirement]) -> Iterator[Finding]:
    """Find the versions of Python, of the packages that are always needed, and of ONNX Runtime."""
    yield Finding(
        subject="Python", state="ok", text=f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    )
    needed = [each for each in requirements if each.extra is None]
    if needed:
        yield _diagnose_packages(needed)
    else:
        yield Finding(subject="packages", state="note", text="pip does not know pxdbg-runtime, so none were compared")
    yield _diagnose("ONNX Runtime", _describe_onnxruntime)
    yield _diagnose_gpu()


def _diagnose_packages(needed: list[Requirement]) -> Finding:
    versions = {each.name: find_version(each.name) for each in needed}
    listed = ", ".join(f"{name} {version or 'missing'}" for name, version in versions.items())
    wrong = [f"{each.name}>={each.oldest}" for each in needed if not _is_admitted(each, versions[each.name])]
    if wrong:
        quoted = " ".join(f"'{each}'" for each in wrong)
        return Finding(subject="packages", state="fails", text=f"{listed}: pip install -U {quoted}")
    return Finding(subject="packages", state="ok", text=listed)


def _is_admitted(requirement: Requirement, version: str | None) -> bool:
    return version is not None and parse_version(version) >= parse_version(requirement.oldest)


def _describe_onnxruntime() -> str:
    module = import_onnxruntime()
    wheels = ", ".join(f"{wheel} {version}" for wheel, version in find_onnxruntime_wheels().items())
    offered = ", ".join(each.removesuffix("ExecutionProvider") for each in module.get_available_providers())
    return f"{wheels or f'{module.__version__}, of another build'}; offers {offered} (pxdbg providers tries each)"


def _diagnose_gpu() -> Finding:
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return Finding(subject="NVIDIA GPU", state="ok", text=f"none: its driver ({CUDA_DRIVER}) is not here")
    try:
        offered = tuple(import_onnxruntime().get_available_providers())
    except PxdbgError:
        return Finding(subject="NVIDIA GPU", state="note", text="there is an NVIDIA driver, but no ONNX Runtime")
    if CUDA in offered:
        return Finding(subject="NVIDIA GPU", state="ok", text="there is an NVIDIA driver, and ONNX Runtime offers CUDA")
    return Finding(
        subject="NVIDIA GPU", state="note", text=f"there is an NVIDIA driver. {explain_not_offered('cuda', offered)}"
    )


def diagnose_job() -> Iterator[Finding]:
    """Find the CPU, and how many CPUs and threads the job may use."""
    yield Finding(subject="CPU", state="ok", text=_describe_cpu())
    cpus = count_job_cpus()
    count = "1 CPU" if cpus.count == 1 else f"{cpus.count} CPUs"
    yield _diagnose(
        "CPUs, threads",
        functools.partial(prepare_threads, 1, 1),
        f"{count} for this job ({cpus.limited_by}); threads start",
    )
    yield _diagnose("memory to start", require_address_space_for_libraries, _describe_limits())


def _describe_cpu() -> str:
    cpu = detect_cpu()
    if cpu.dot_products is None:
        return f"{cpu.name}; this system does not list its instructions"
    vectors = (
        "AVX-512" if "avx512f" in cpu.features else "AVX2" if "avx2" in cpu.features else "neither AVX-512 nor AVX2"
    )
    if "asimd" in cpu.features:
        vectors = "Advanced SIMD"
    products = ", ".join(cpu.dot_products) or "none, so int8 takes longer here, with the same digits"
    return f"{cpu.name}; {vectors}; instructions for int8: {products}"


def _describe_limits() -> str:
    limits = {"address space (ulimit -v)": read_address_space_limit(), "memory (cgroup)": read_memory_limit()}
    return "; ".join(
        f"{name}: {'no limit' if limit is None else f'{limit // _MB:,} MB'}" for name, limit in limits.items()
    )


def diagnose_memory(precision: str, batch_size: int, n_values: int) -> Finding:
    """Compare the estimate for generating on a CPU with the limits of this job.

    Parameters
    ----------
    precision : {"float32", "float16", "int8"}
    batch_size : int
        Images per call.
    n_values : int
        Random values per event.
    """
    needed = estimate_address_space(precision, batch_size, n_values)
    text = f"an event reserves up to about {needed // _MB:,} MB; {_describe_limits()}"
    limit = read_memory_limit()
    if limit is not None and limit < needed:
        return Finding(subject="memory", state="note", text=f"{text}: the job may be killed; ask for more memory")
    return Finding(subject="memory", state="ok", text=text)


def diagnose_cache() -> Finding:
    """Find out whether kernels can be compiled, and whether they are kept for the next process."""
    try:
        from pxdbg_runtime.digitisation.jit import find_cache_folder
        from pxdbg_runtime.digitisation.kernels import find_hits
    except PxdbgError as error:  # on a CPU events need no kernels
        return Finding(subject="compiled kernels", state="broken", text=str(error))
    folder = find_cache_folder(find_hits)
    advice = "each process compiles them again, about a second: set NUMBA_CACHE_DIR to a folder that can be written to"
    if folder is None:
        return Finding(subject="compiled kernels", state="note", text=f"no folder can be written to: {advice}")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_CACHE_BYTES))
            file.flush()
    except OSError as error:
        text = f"{folder} cannot be written to ({error.strerror}): {advice}"
        return Finding(subject="compiled kernels", state="note", text=text)
    return Finding(subject="compiled kernels", state="ok", text=f"kept in {folder}")


def _diagnose(subject: str, call: Callable[[], str | None], text: str = "") -> Finding:
    """Call something that raises an error of this package if no event can be generated."""
    try:
        return Finding(subject=subject, state="ok", text=call() or text)
    except PxdbgError as error:
        return Finding(subject=subject, state="fails", text=str(error))
