"""Work in a process of its own: ``python -m benchmarks.fresh_process MODULE FUNCTION ARGUMENT...``.

Whoever starts it gets the peak of its memory and what the function returned. The process imports what the function
needs, and little beside.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FreshRun", "run_fresh"]

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_STATUS: Final = Path("/proc/self/status")
_BYTES_PER_KIB: Final = 1024


@dataclass(frozen=True, kw_only=True)
class FreshRun:
    """What became of a process.

    Attributes
    ----------
    values : tuple of float
        What the function returned.
    peak_bytes : int
        Largest resident size of the process.
    """

    values: tuple[float, ...]
    peak_bytes: int


def run_fresh(work: Callable[..., Sequence[float]], *arguments: str) -> FreshRun:
    """Call a function in a process of its own.

    Parameters
    ----------
    work : callable
        A function of a module; takes texts.
    *arguments : str

    Raises
    ------
    RuntimeError
        If the process fails; the message is the last line of its standard error.
    """
    command = [sys.executable, "-m", "benchmarks.fresh_process", work.__module__, work.__qualname__, *arguments]
    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["nothing on its standard error"]
        message = f"a process of its own ended with exit code {done.returncode}: {lines[-1]}"
        raise RuntimeError(message)
    # The last line is ours, whatever else the packages print.
    values, peak_bytes = json.loads(done.stdout.splitlines()[-1])
    return FreshRun(values=tuple(values), peak_bytes=peak_bytes)


def _peak_bytes() -> int:
    """Give the largest resident size of this process so far.

    On Linux not ``getrusage``: its ``ru_maxrss`` begins with the size of the process that started this one.

    Raises
    ------
    RuntimeError
        If the system does not tell.
    """
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _BYTES_PER_KIB
    try:
        import resource
    except ImportError:  # Windows
        message = f"the peak of the memory is not known here: there is neither VmHWM in {_STATUS} nor getrusage"
        raise RuntimeError(message) from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * _BYTES_PER_KIB


def _main(module: str, function: str, *arguments: str) -> None:
    work: Callable[..., Sequence[float]] = getattr(importlib.import_module(module), function)
    values = work(*arguments)
    sys.stdout.write(f"\n{json.dumps([list(values), _peak_bytes()])}\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
