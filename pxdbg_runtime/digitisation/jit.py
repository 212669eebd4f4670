"""Compile the kernels with numba: without the GIL, cached on disk where possible."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

from pxdbg_runtime.errors import one_line
from pxdbg_runtime.optional_imports import require

require("numba", extra="cpu", purpose="A compiled kernel")  # its errors are one sentence each

import numba
from numba.core import caching, config, entrypoints, sigutils
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from numba.core.compiler import CompileResult

__all__ = ["find_cache_folder", "kernel"]

Function = TypeVar("Function", bound="Callable[..., object]")
_log = logging.getLogger(__name__)
_FIRST_FAILURE: Final = threading.Lock()
"""Acquired by the first failure of the cache: only that one is logged."""


def kernel(function: Function) -> Function:
    """Compile a function at its first call, once for all processes that share a cache.

    When the function is decorated, numba looks for a writable folder: ``NUMBA_CACHE_DIR``, beside the source, then
    the user's cache folder. If there is none, or if the cache cannot be read or written later, kernels are compiled
    in memory, and one line of the log gives the reason.
    """
    compiled = numba.njit(nogil=True)(function)
    if isinstance(compiled, Dispatcher):  # with NUMBA_DISABLE_JIT it is the function itself
        _omit_extensions(compiled)
        try:
            # As Dispatcher.enable_caching does.
            compiled._cache = _Cache(function)  # type: ignore[attr-defined, no-untyped-call]
        except Exception as error:  # noqa: BLE001  # no writable folder, or any failure of a file system
            _log_first_failure(error)
    return cast("Function", compiled)


def find_cache_folder(compiled: Callable[..., object]) -> Path | None:
    """Find the folder in which numba caches a kernel; None if each process compiles it in memory."""
    cache = getattr(compiled, "_cache", None)
    return Path(cache.cache_path) if isinstance(cache, _Cache) else None


def _omit_extensions(compiled: Dispatcher) -> None:
    """Keep the compilation of a kernel from loading other packages' extensions of numba.

    numba loads them at the first compilation of a process, whatever it is: awkward imports itself and pyarrow, 60 MB.
    Kernels take arrays and numbers, which need none. A later compilation of the caller's own functions loads them.
    """
    compile_for_signature = compiled.compile

    def compile_without_extensions(signature: tuple[numba.core.types.Type, ...]) -> object:
        with global_compiler_lock:
            before = entrypoints._already_initialized
            entrypoints._already_initialized = True
            try:
                return compile_for_signature(signature)
            finally:
                entrypoints._already_initialized = before

    vars(compiled).update(compile=compile_without_extensions, _compilation_chain_init_hook=lambda: None)


class _NoRelativePath:
    """Refuses cache folders with a relative path.

    Without HOME, and for a user that the system does not know, numba's user-wide cache is the folder ``~`` in the
    working folder. A relative ``NUMBA_CACHE_DIR`` is accepted unless it begins with ``~``.
    """

    def ensure_cache_path(self) -> None:
        path = self.get_cache_path()  # type: ignore[attr-defined]  # from the locator that inherits from this class
        chosen: str = config.CACHE_DIR  # type: ignore[attr-defined]  # set from the environment
        is_wanted = bool(chosen) and path.startswith(chosen) and not path.startswith("~")
        if not Path(path).is_absolute() and not is_wanted:
            message = f"the folder {path} is not absolute"
            raise OSError(message)
        super().ensure_cache_path()  # type: ignore[misc]


class _CacheFiles(caching.CompileResultCacheImpl):
    _locator_classes = [  # noqa: RUF012  # as in the base
        type(each.__name__, (_NoRelativePath, each), {})  # type: ignore[misc]  # mypy does not follow type()
        for each in caching.CompileResultCacheImpl._locator_classes
    ]


class _Cache(caching.FunctionCache):
    """numba's cache of one function; its failures do not reach the caller of the function."""

    _impl_class = _CacheFiles

    def load_overload(self, sig: object, target_context: object) -> CompileResult | None:
        try:
            found: CompileResult | None = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
            if found is not None:
                _check_signature(found, sig)
        except Exception as error:  # noqa: BLE001  # pickle alone raises a dozen types for damaged files
            _log_first_failure(error)
            with contextlib.suppress(Exception):
                # An empty index replaces what cannot be read, for later processes.
                self.flush()  # type: ignore[no-untyped-call]
            return None
        return found

    def save_overload(self, sig: object, data: object) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  # as above
            _log_first_failure(error)


def _check_signature(found: CompileResult, sig: object) -> None:
    """Refuse machine code for other types.

    Two processes that start with an empty cache give their files the same number, so the index of one may name the
    file of the other.
    """
    expected, _ = sigutils.normalize_signature(sig)  # type: ignore[no-untyped-call]
    args = found.signature.args  # type: ignore[attr-defined]  # a named tuple with fields that mypy does not know
    if tuple(args) != tuple(expected):
        message = f"a file holds the code for {args} instead of {expected}"
        raise ValueError(message)


def _log_first_failure(error: Exception) -> None:
    if _FIRST_FAILURE.acquire(blocking=False):
        reason = f"{type(error).__name__}: {one_line(error)}"
        _log.info("numba's cache does not work, so kernels are compiled in memory: %s", reason)


if hasattr(os, "register_at_fork"):
    # A fork waits for the end of a compilation: in the child, which lacks the thread, it would never end.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )
