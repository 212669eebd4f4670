"""Call a function in a new process: ``python -m benchmarks.fresh_process MODULE FUNCTION ARGUMENT...``.

The process imports little but what the function needs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_STATUS: Final = Path("/proc/self/status")
_BYTES_PER_KIB: Final = 1024


class FreshRun(NamedTuple):
    """The result of the function, and the largest resident size of its process."""

    values: tuple[float, ...]
    peak_bytes: int


def run_fresh(work: Callable[..., Sequence[float]], *arguments: str) -> FreshRun:
    """Call a function of a module in a new process.

    Raises
    ------
    RuntimeError
        If the process fails; the message is the last line of its standard error.
    """
    command = [sys.executable, "-m", "benchmarks.fresh_process", work.__module__, work.__qualname__, *arguments]
    done = subprocess.run(command, cwd=_CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["nothing on its standard error"]
        message = f"the new process ended with exit code {done.returncode}: {lines[-1]}"
        raise RuntimeError(message)
    # Packages may print further lines before it.
    values, peak_bytes = json.loads(done.stdout.splitlines()[-1])
    return FreshRun(tuple(values), peak_bytes)


def _read_peak_bytes() -> int:
    """Read the largest resident size of this process so far.

    On Linux, ``ru_maxrss`` of ``getrusage`` starts at the size of the parent process, so it is not used.
    """
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _BYTES_PER_KIB
    try:
        import resource
    except ImportError:  # Windows
        message = f"the peak memory is not known: this system has neither VmHWM in {_STATUS} nor getrusage"
        raise RuntimeError(message) from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * _BYTES_PER_KIB


def _run(module: str, function: str, *arguments: str) -> None:
    work: Callable[..., Sequence[float]] = getattr(importlib.import_module(module), function)
    values = work(*arguments)
    sys.stdout.write(f"\n{json.dumps([list(values), _read_peak_bytes()])}\n")


if __name__ == "__main__":
    _run(*sys.argv[1:])
