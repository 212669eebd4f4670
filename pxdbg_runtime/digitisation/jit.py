"""How the kernels are compiled: by numba, without the GIL, cached on disk where that works."""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import numba
from numba.core import caching, config, sigutils
from numba.core.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from numba.core.compiler import CompileResult

__all__ = ["kernel"]

Function = TypeVar("Function", bound="Callable[..., object]")
_log = logging.getLogger(__name__)
_FIRST_FAILURE: Final = threading.Lock()
"""Taken by the first failure of the cache, which is logged; the others are not."""


def kernel(function: Function) -> Function:
    """Compile a function when it is first called, once for all processes that share a cache.

    numba looks for a writable place when the function is decorated: ``NUMBA_CACHE_DIR``, beside the source,
    then the user's cache folder. Where there is none, or where the cache cannot be read or written later, kernels
    are compiled in memory, and one line of the log says why.
    """
    compiled = numba.njit(nogil=True)(function)
    if isinstance(compiled, Dispatcher):  # with NUMBA_DISABLE_JIT it is the function itself
        try:
            # As Dispatcher.enable_caching does.
            compiled._cache = _Cache(function)  # type: ignore[attr-defined, no-untyped-call]
        except Exception as error:  # noqa: BLE001  # no place, or one that fails in any of a file system's ways
            _log_first_failure(error)
    return cast("Function", compiled)


class _NoRelativePath:
    """Refuses a folder of numba's that is not absolute.

    Without HOME and for a user that the system does not know, numba's user-wide cache is the folder ``~`` in the
    working folder. A relative ``NUMBA_CACHE_DIR`` is taken, unless it begins with ``~``.
    """

    def ensure_cache_path(self) -> None:
        path = self.get_cache_path()  # type: ignore[attr-defined]  # of the locator that this is mixed into
        chosen: str = config.CACHE_DIR  # type: ignore[attr-defined]  # set from the environment
        is_wanted = bool(chosen) and path.startswith(chosen) and not path.startswith("~")
        if not Path(path).is_absolute() and not is_wanted:
            message = f"the folder {path} is not absolute"
            raise OSError(message)
        super().ensure_cache_path()  # type: ignore[misc]


class _CacheFiles(caching.CompileResultCacheImpl):
    _locator_classes = [  # noqa: RUF012  # as in the base
        type(each.__name__, (_NoRelativePath, each), {})  # type: ignore[misc]  # mypy loses what type() makes
        for each in caching.CompileResultCacheImpl._locator_classes
    ]


class _Cache(caching.FunctionCache):
    """numba's cache of one function, whose failures do not reach the caller of the function."""

    _impl_class = _CacheFiles

    def load_overload(self, sig: object, target_context: object) -> CompileResult | None:
        try:
            found: CompileResult | None = super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
            if found is not None:
                _check_signature(found, sig)
        except Exception as error:  # noqa: BLE001  # pickle alone raises a dozen kinds for damaged files
            _log_first_failure(error)
            with contextlib.suppress(Exception):
                # An empty index takes the place of what cannot be read, for the processes to come.
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

    Two processes that begin with an empty cache give their files the same number, and the index may then name the
    other one's.
    """
    expected, _ = sigutils.normalize_signature(sig)  # type: ignore[no-untyped-call]
    args = found.signature.args  # type: ignore[attr-defined]  # a named tuple that is made of a list of names
    if tuple(args) != tuple(expected):
        message = f"a file holds the code for {args} in place of {expected}"
        raise ValueError(message)


def _log_first_failure(error: Exception) -> None:
    if _FIRST_FAILURE.acquire(blocking=False):
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        _log.info("numba's cache does not work, so kernels are compiled in memory: %s", reason)
