"""Freed arrays are given back to the system, whatever was allocated after them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from types import SimpleNamespace
from typing import Final

import pytest

from pxdbg_runtime.limits.heap import return_freed_memory

PIN: Final = """
import sys
from pxdbg_runtime.limits.heap import return_freed_memory
from tests.soak import measure_resident_kb

if sys.argv[1] == "returned" and not return_freed_memory():
    sys.exit("there is no glibc")
bytearray(20_000_000)  # glibc keeps what is as large as this from now on, unless it is told not to
before = measure_resident_kb()
for _ in range(5):
    large = bytearray(20_000_000)
    pin = [bytearray(600) for _ in range(2000)]  # on top of it
    del large
print(round(measure_resident_kb() - before))
"""
MAX_KB: Final = 8_000


def measure_growth_kb(kind: str) -> int:
    done = subprocess.run([sys.executable, "-c", PIN, kind], capture_output=True, text=True, check=False)
    if "there is no glibc" in done.stderr:
        pytest.skip(done.stderr)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_freed_array_is_given_back() -> None:
    assert measure_growth_kb("returned") < MAX_KB < measure_growth_kb("kept")


@pytest.mark.parametrize(("platform", "library"), [("win32", None), ("linux", SimpleNamespace())])
def test_other_systems_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, platform: str, library: SimpleNamespace | None
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: library)
    assert not return_freed_memory()
