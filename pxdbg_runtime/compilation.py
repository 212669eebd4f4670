"""How the kernels are compiled: by numba, without the GIL, cached on disk where there is a place for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar, cast

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["kernel"]

Function = TypeVar("Function", bound="Callable[..., object]")
_log = logging.getLogger(__name__)


def kernel(function: Function) -> Function:
    """Compile a function when it is first called, once for all processes that share a cache.

    numba looks for a writable place when the function is decorated: ``NUMBA_CACHE_DIR``, beside the source,
    then the user's cache folder. On a grid slot there may be none; then each process compiles in memory.
    """
    try:
        return cast("Function", numba.njit(nogil=True, cache=True)(function))
    except RuntimeError as error:
        _log.info("%s is compiled in memory: %s", function.__name__, error)
        return cast("Function", numba.njit(nogil=True)(function))
