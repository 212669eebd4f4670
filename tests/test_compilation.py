"""Kernels are compiled and cached where there is a place, and in memory where there is none; imports stay cheap."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.compilation import kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

HEAVY: Final = {"torch", "onnx", "numba", "onnxruntime", "pyarrow", "matplotlib", "typer", "rich"}
SOURCE: Final = "from __future__ import annotations\ndef double(number: int) -> int:\n    return 2 * number\n"


def function_of(source_file: Path) -> Callable[[int], int]:
    """Import a function from a file."""
    source_file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(source_file.stem, source_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    double: Callable[[int], int] = module.double
    return double


def function_without_a_file() -> Callable[[int], int]:
    """Make a function that numba finds no cache for, because it is in no file."""
    namespace: dict[str, Callable[[int], int]] = {}
    exec(SOURCE, namespace)
    return namespace["double"]


def test_a_kernel_is_cached_beside_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    double = kernel(function_of(tmp_path / "doubling.py"))
    assert double(21) == 42
    assert {path.suffix for path in (tmp_path / "__pycache__").iterdir()} >= {".nbi", ".nbc"}
    assert caplog.records == []


def test_a_kernel_without_a_place_for_a_cache_is_compiled_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pxdbg_runtime.compilation"):
        double = kernel(function_without_a_file())
    assert double(21) == 42
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().startswith("double is compiled in memory: cannot cache function 'double'")


def test_a_process_without_a_place_for_a_cache_makes_digits_all_the_same() -> None:
    script = """
import numba
real = numba.njit
def njit(*arguments, **options):
    if options.get("cache"):
        raise RuntimeError("cannot cache function: no locator available")
    return real(*arguments, **options)
numba.njit = njit
import numpy as np
from pxdbg_runtime import kernels
table = np.append(np.array([-0.5, 0.5]), np.full(253, 2)).astype(np.float32)
charges = np.zeros((1, 1, 3), dtype=np.uint8)
assert kernels.fill_charges(np.array([[[-1, 0, 1]]], dtype=np.float32), table[0], table, np.array([-1, 1], dtype=np.float32), charges)
print(charges.tolist(), kernels.fill_charges.stats.cache_path)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[[0, 1, 2]]] None\n"


def test_kernels_can_be_cached_in_a_folder_of_the_users(tmp_path: Path) -> None:
    script = """
import numpy as np
from pxdbg_runtime import kernels
kernels.charge_of(np.float32(0), np.zeros(255, dtype=np.float32))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert any("charge_of" in path.name for path in tmp_path.rglob("*.nbc"))


def test_importing_the_package_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import pxdbg_runtime"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"pxdbg_runtime", "pxdbg_runtime.generator", "numpy"} <= loaded
    assert {name for name in loaded if name.partition(".")[0] in HEAVY} == set()
