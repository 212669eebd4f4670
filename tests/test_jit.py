"""Kernels are compiled and cached where there is a place, and in memory where there is none; imports stay cheap."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, cast

import numba
import pytest

from pxdbg_runtime.digitisation import jit
from pxdbg_runtime.digitisation.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pxdbg_runtime.model.graph_file import GraphFile

HEAVY: Final = {"torch", "onnx", "numba", "onnxruntime", "pyarrow", "matplotlib", "typer", "rich"}
SOURCE: Final = "from __future__ import annotations\ndef double(number):\n    return 2 * number\n"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Collect what a new process would log, with no folder given for the cache."""
    monkeypatch.setattr(jit, "_FIRST_FAILURE", threading.Lock())
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    caplog.set_level(logging.INFO, logger="pxdbg_runtime.digitisation.jit")
    return caplog


def read_stats(function: Callable[..., object]) -> Any:  # noqa: ANN401  # numba's
    return cast("Any", function).stats


def import_function(folder: Path) -> Callable[[float], float]:
    """Import a function from a file in a folder, as each process does."""
    source_file = folder / "doubling.py"
    if not source_file.exists():
        source_file.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location(source_file.stem, source_file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    double: Callable[[float], float] = module.double
    return double


def run_kernel(folder: Path) -> Callable[[float], float]:
    """Compile the function, or load it from its cache, and call it."""
    double = kernel(import_function(folder))
    assert double(21) == 42
    return double


def define_function() -> Callable[[float], float]:
    """Make a function that numba finds no cache for, because it is in no file."""
    namespace: dict[str, Callable[[float], float]] = {}
    exec(SOURCE, namespace)
    return namespace["double"]


def test_a_kernel_is_cached_beside_its_source(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    run_kernel(tmp_path)
    assert {path.suffix for path in (tmp_path / "__pycache__").iterdir()} >= {".nbi", ".nbc"}
    assert log.records == []


def test_a_kernel_without_a_place_for_a_cache_is_compiled_in_memory(log: pytest.LogCaptureFixture) -> None:
    double = kernel(define_function())
    assert double(21) == 42
    assert kernel(define_function())(4) == 8
    (record,) = log.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "numba's cache does not work, so kernels are compiled in memory: RuntimeError: cannot cache function 'double': "
        "no locator available for file '<string>'"
    )


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def replace_by_a_list(path: Path) -> None:
    path.write_bytes(pickle.dumps(numba.__version__) + pickle.dumps([1, 2, 3]))


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("suffix", "damage", "is_repaired"),
    [
        (".nbi", empty, True),
        (".nbi", truncate, True),
        (".nbi", replace_by_a_list, True),
        (".nbi", replace_by_a_folder, False),
        (".nbc", empty, True),
        (".nbc", truncate, True),
        (".nbc", replace_by_a_list, True),
    ],
)
def test_a_damaged_cache_costs_a_compilation_and_is_repaired(
    tmp_path: Path, log: pytest.LogCaptureFixture, suffix: str, damage: Callable[[Path], None], is_repaired: bool
) -> None:
    run_kernel(tmp_path)
    (file,) = (tmp_path / "__pycache__").glob(f"*{suffix}")
    damage(file)
    assert log.records == []
    run_kernel(tmp_path)
    (record,) = log.records
    assert record.getMessage().startswith("numba's cache does not work, so kernels are compiled in memory: ")
    log.clear()
    assert sum(read_stats(run_kernel(tmp_path)).cache_hits.values()) == int(is_repaired)
    assert log.records == []


@pytest.mark.parametrize("is_replaced", [False, True])
def test_the_folder_of_the_cache_may_vanish_before_the_first_call(
    tmp_path: Path, log: pytest.LogCaptureFixture, is_replaced: bool
) -> None:
    double = kernel(import_function(tmp_path))
    shutil.rmtree(tmp_path / "__pycache__")
    if is_replaced:
        (tmp_path / "__pycache__").write_text("a file")
    assert double(21) == 42
    assert len(log.records) == int(is_replaced)  # else it is made again


def test_a_full_disk_keeps_nothing_and_fails_nothing(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    resource = pytest.importorskip("resource")
    double = kernel(import_function(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # each write fails, as on a full disk, with another number
    try:
        assert double(21) == 42
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (record,) = log.records
    assert "kernels are compiled in memory: OSError: [Errno 27]" in record.getMessage()
    assert [path for path in (tmp_path / "__pycache__").iterdir() if ".tmp" in path.name] == []


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [(numba, "__version__", "0.1"), (numba.core.codegen.JITCPUCodegen, "magic_tuple", lambda _: ("x86", "486", ""))],
    ids=["release", "cpu"],
)
def test_a_cache_of_another_release_or_cpu_is_not_used(
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    value: object,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, value)
        run_kernel(tmp_path)
    for hits in (0, 1):
        assert sum(read_stats(run_kernel(tmp_path)).cache_hits.values()) == hits
    assert log.records == []


def test_code_for_other_types_is_not_run(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    assert run_kernel(tmp_path)(1.5) == 3.0
    first, second = sorted((tmp_path / "__pycache__").glob("*.nbc"))
    first.write_bytes(second.read_bytes())  # as two processes that begin with an empty cache at once may leave it
    run_kernel(tmp_path)
    (record,) = log.records
    assert "ValueError: a file holds the code for (float64,) instead of (int64,)" in record.getMessage()


@pytest.mark.parametrize("folder", ["~/numba", None])
def test_no_folder_is_named_after_a_home_that_nobody_knows(
    tmp_path: Path, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    pwd = pytest.importorskip("pwd")

    def find_nobody(user_id: int) -> None:
        message = f"getpwuid(): uid not found: {user_id}"
        raise KeyError(message)

    (tmp_path / "__pycache__").write_text("a file, so that there is no place beside the source")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", find_nobody)
    monkeypatch.setattr(numba.config, "CACHE_DIR", folder or "")
    run_kernel(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"doubling.py", "__pycache__"}
    assert len(log.records) == 1


@pytest.mark.slow
def test_kernels_that_call_kernels_need_no_cache_and_log_one_line(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    (tmp_path / "summing.py").write_text("""
import logging, resource, sys
logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s", stream=sys.stdout)
from pxdbg_runtime.digitisation.jit import kernel
@kernel
def double(number):
    return 2 * number
@kernel
def add_doubles(numbers):
    total = 0
    for number in numbers:
        total += double(number)
    return total
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(add_doubles((1, 2, 3)), double(1.5))
""")
    cache = tmp_path / "cache"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "summing.py")]
    # Standard output is a pipe, which has no size.
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    logged, printed = done.stdout.splitlines()
    assert logged.startswith("pxdbg_runtime.digitisation.jit numba's cache does not work")
    assert printed == "12 3.0"
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import pxdbg_runtime"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert {"pxdbg_runtime", "pxdbg_runtime.generator", "numpy"} <= loaded
    assert {name for name in loaded if name.partition(".")[0] in HEAVY} == set()


def test_an_event_on_a_cpu_loads_neither_numba_nor_scipy(latent_graph: GraphFile) -> None:
    script = (
        "import sys\nfrom pxdbg_runtime import Generator\ngenerator = Generator(sys.argv[1], provider='cpu', seed=1)\n"
        "print(len(generator.generate(0)) > 0, generator.generate_images(0).any())\n"
        "print({'numba', 'llvmlite', 'scipy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", script, str(latent_graph.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "True True\nset()\n"


def test_a_numba_that_does_not_import_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.4 or less. Got NumPy 2.5.')")
    script = """
import sys
sys.path.insert(0, sys.argv[1])
from pxdbg_runtime import Digits, overlay
from pxdbg_runtime.diagnosis.machine import diagnose_cache
from pxdbg_runtime.errors import BrokenPackageError
try:
    overlay(Digits.empty(), Digits.empty())
except BrokenPackageError as error:
    print(error)
    print(diagnose_cache().state, diagnose_cache().text == str(error))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sentence = (
        "A compiled kernel needs numba, which is installed but does not import (Numba needs NumPy 2.4 or less. Got "
        "NumPy 2.5.): install it again: pip install --upgrade --force-reinstall numba."
    )
    assert done.stdout.splitlines() == [sentence, "broken True"]


@pytest.mark.slow
def test_kernels_load_no_extensions_of_numba_and_other_functions_do(tmp_path: Path) -> None:
    (tmp_path / "other_package.py").write_text("def init(): print('loaded')\n")
    metadata = tmp_path / "other_package-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[numba_extensions]\ninit = other_package:init\n")
    script = """
import numba
from pxdbg_runtime.digitisation.jit import kernel
def double(number):
    return 2 * number
print(kernel(double)(1))
print(numba.njit(double)(2))
"""
    (tmp_path / "doubling.py").write_text(script)
    command = [sys.executable, str(tmp_path / "doubling.py")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert done.stdout.split() == ["2", "loaded", "4"]


FORK: Final = """
import os, signal, threading
from pxdbg_runtime.digitisation.jit import global_compiler_lock
compiling, go_on = threading.Event(), threading.Event()
def compile_slowly():
    with global_compiler_lock:
        compiling.set()
        assert go_on.wait(60)
threading.Thread(target=compile_slowly).start()
assert compiling.wait(60)
threading.Timer(0.2, go_on.set).start()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    with global_compiler_lock:
        os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no forks")
def test_a_fork_beside_a_compilation_can_compile() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
