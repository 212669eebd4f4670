"""Limits on the address space: what is reserved, what is refused, and in which words."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import pytest

from pxdbg_runtime.errors import MemoryLimitError, MissingPackageError
from pxdbg_runtime.inference.providers import CPU, CUDA
from pxdbg_runtime.limits import address_space
from pxdbg_runtime.limits.address_space import (
    explain_memory_failure,
    read_address_space_limit,
    report_memory_errors,
    require_address_space,
    require_address_space_for_events,
)
from pxdbg_runtime.optional_imports import require
from tests.digit_files import SAMPLE, write
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from pathlib import Path

resource = pytest.importorskip("resource")

PROGRAM: Final = "from pxdbg_runtime.command_line import app; app()"
ERROR: Final = re.compile(r"^Error: .*\.$", re.MULTILINE)
MODELS: Final = [("resnet", "int8", "npz"), ("resnet", "int8", "parquet"), ("resnet", "float32", "npz")]
ENOUGH_MB: Final = 700
"""Of address space, for any command with one thread."""


def run_limited(limit_mb: int, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pxdbg in an address space of so many thousands of kB, as ulimit -v counts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONFAULTHANDLER": ""}
    for name in ("OPENBLAS_NUM_THREADS", "ARROW_DEFAULT_MEMORY_POOL", "MALLOC_ARENA_MAX"):
        environment.pop(name, None)
    limit = ["bash", "-c", f'ulimit -v {limit_mb * 1000}; exec "$@"', "bash"]
    command = [*limit, sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def check_outcome(done: subprocess.CompletedProcess[str], folder: Path, *, wanted: set[str], given: set[str]) -> bool:
    """Check that a command wrote its file, or said in a sentence why not and left nothing; return whether it did."""
    left = {path.name for path in folder.iterdir()} - given
    if done.returncode == 0:
        assert left == wanted
        return True
    assert done.returncode == 1, done.stderr
    assert len(ERROR.findall(done.stderr)) == 1, done.stderr
    assert "address space" in done.stderr or "memory" in done.stderr
    assert "Traceback" not in done.stderr
    assert left == set()
    return False


@pytest.mark.parametrize(
    ("limit_mb", "output", "fits"), [(200, "a.npz", False), (400, "a.npz", None), (2000, "a.parquet", True)]
)
def test_a_command_works_in_its_limit_or_says_what_it_needs(
    tmp_path: Path, limit_mb: int, output: str, fits: bool | None
) -> None:
    write_graph(tmp_path / "tiny.onnx", latent_model(), LATENT_CARD)
    done = run_limited(limit_mb, tmp_path, "generate", "--model", "tiny.onnx", "--output", output)
    works = check_outcome(done, tmp_path, wanted={output}, given={"tiny.onnx"})
    assert fits is None or works is fits


@pytest.mark.parametrize("limit_mb", [330, 440])  # the library of numba does not load; numba does not import
def test_an_overlay_says_what_it_needs(tmp_path: Path, limit_mb: int) -> None:
    write(tmp_path / "in.npz", [SAMPLE])
    done = run_limited(limit_mb, tmp_path, "overlay", "in.npz", "in.npz", "--output", "a.parquet")
    assert not check_outcome(done, tmp_path, wanted=set(), given={"in.npz"})


@pytest.mark.exhaustive
@pytest.mark.parametrize(("model", "precision", "suffix"), MODELS)
def test_every_limit_from_200_mb_to_4_gb(tmp_path: Path, model: str, precision: str, suffix: str) -> None:
    outcomes = {}
    for limit_mb in range(200, 4001, 100):
        arguments = ("--model", model, "--precision", precision, "--seed", "7", "--output", f"a.{suffix}")
        done = run_limited(limit_mb, tmp_path, "generate", *arguments)
        outcomes[limit_mb] = check_outcome(done, tmp_path, wanted={f"a.{suffix}"}, given=set())
        (tmp_path / f"a.{suffix}").unlink(missing_ok=True)
    print(model, precision, suffix, "works from", min(limit for limit, works in outcomes.items() if works), "MB")  # noqa: T201
    assert all(works for limit, works in outcomes.items() if limit >= ENOUGH_MB)


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", ["show", "plot"])
def test_files_are_shown_at_every_limit(tmp_path: Path, command: str) -> None:
    arguments = ("generate", "--model", "resnet", "--precision", "int8", "--seed", "7", "--output", "in.parquet")
    assert run_limited(4000, tmp_path, *arguments).returncode == 0
    output = {"show": (), "plot": ("--output", "a.png")}[command]
    for limit_mb in range(500, 4001, 100):
        done = run_limited(limit_mb, tmp_path, command, "in.parquet", *output)
        assert check_outcome(done, tmp_path, wanted={"a.png"} if output else set(), given={"in.parquet"})
        (tmp_path / "a.png").unlink(missing_ok=True)


def test_a_process_with_a_limit_is_told_to_reserve_less_and_a_free_one_is_not() -> None:
    script = """
import os, resource, sys
os.environ["OPENBLAS_NUM_THREADS"] = "3"
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_AS, (2 * 10**9, resource.getrlimit(resource.RLIMIT_AS)[1]))
import pxdbg_runtime
print(os.environ["OPENBLAS_NUM_THREADS"], os.environ.get("ARROW_DEFAULT_MEMORY_POOL"))
"""
    environment = {name: value for name, value in os.environ.items() if name != "ARROW_DEFAULT_MEMORY_POOL"}
    for word, expected in (("limited", "3 system\n"), ("free", "3 None\n")):
        command = [sys.executable, "-c", script, word]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        assert done.stdout == expected


def test_the_message_tells_what_is_needed_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_space, "read_address_space_limit", lambda: 10**9)
    monkeypatch.setattr(address_space, "_read_bytes_in_use", lambda: 2 * 10**8)
    message = (
        r"^A test needs about 1,152,921,504,607 MB of address space more than the 200 MB in use, "
        r"1,152,921,504,807 MB in "
        r"all, but the limit is 1,000 MB: raise it with ulimit -v 1152921504806847 or more, or lift it with "
        r"ulimit -v unlimited\.$"
    )
    with pytest.raises(MemoryLimitError, match=message) as caught:
        require_address_space(2**60, "A test")
    assert caught.value.needed_bytes == 2**60
    assert isinstance(caught.value, MemoryError)


def test_the_message_says_less_where_less_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_space, "read_address_space_limit", lambda: None)
    message = (
        r"^A test needs about .* MB of address space more than this system grants: free memory, or raise its limits "
        r"\(ulimit -d, ulimit -v\)\.$"
    )
    with pytest.raises(MemoryLimitError, match=message):
        require_address_space(2**80, "A test")
    monkeypatch.setattr(address_space, "read_address_space_limit", lambda: 2**90)  # another limit, or none left
    with pytest.raises(MemoryLimitError, match=message):
        require_address_space(2**80, "A test")
    require_address_space(10**6, "A test")


def test_a_package_is_not_imported_that_does_not_fit_into_the_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_space, "_PACKAGE_MB", {"a_large_package": 10**12})
    monkeypatch.setattr(address_space, "_is_limited", lambda: True)
    with pytest.raises(
        MemoryLimitError, match=r"^Importing a_large_package needs about 1,000,000,000,000 MB of address"
    ):
        require("a_large_package.inner", extra="plot", purpose="A test")
    monkeypatch.setattr(address_space, "_is_limited", lambda: False)
    with pytest.raises(MissingPackageError, match=r"^A test needs a_large_package, which is not installed"):
        require("a_large_package.inner", extra="plot", purpose="A test")


def test_arrow_starts_few_threads_where_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    counts = arrow.cpu_count(), arrow.io_thread_count()
    monkeypatch.setattr(address_space, "_is_limited", lambda: True)
    with monkeypatch.context() as patched:
        # As if it had not been imported; what the import then finds is the module as it is.
        patched.setattr(address_space, "sys", SimpleNamespace(modules={}))
        address_space.import_within_limits("pyarrow.parquet")
    try:
        assert (arrow.cpu_count(), arrow.io_thread_count()) == (1, 1)
    finally:
        arrow.set_cpu_count(counts[0])
        arrow.set_io_thread_count(counts[1])


def test_latents_without_measure_are_refused_before_they_are_drawn() -> None:
    require_address_space_for_events("int8", 2, 40 * 96)
    with pytest.raises(MemoryLimitError, match=r"^Generating events in float32 with batch_size=1 needs about 64,"):
        require_address_space_for_events("float32", 1, 10**15)


def raise_memory_error(error: MemoryError, *, has_batch: bool = False) -> None:
    with report_memory_errors(has_batch=has_batch):
        raise error


@pytest.mark.parametrize(
    ("text", "reason"),
    [("Unable to allocate\n 7 GiB", "Unable to allocate 7 GiB"), ("", "Python could not allocate more")],
)
def test_memory_errors_become_ours_with_the_limits_of_the_job(
    monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.setattr(address_space, "read_address_space_limit", lambda: 2 * 10**9)
    monkeypatch.setattr(address_space, "read_memory_limit", lambda: 3 * 10**9)
    message = (
        rf"^There is not enough memory: {reason}\. The limits of this job are: address space \(ulimit -v\) 2,000 "
        r"MB and cgroup's memory 3,000 MB\. Take more memory"
    )
    with pytest.raises(MemoryLimitError, match=rf"{message}\.$"):
        raise_memory_error(MemoryError(text))
    with pytest.raises(MemoryLimitError, match=rf"{message}, or a smaller batch_size\.$"):
        raise_memory_error(MemoryError(text), has_batch=True)
    own = MemoryLimitError(7, "A sentence.")
    with pytest.raises(MemoryLimitError, match=r"^A sentence\.$") as caught:
        raise_memory_error(own)
    assert caught.value is own


def test_other_failures_of_onnx_runtime_are_not_of_memory() -> None:
    assert explain_memory_failure("the graph has no node", CPU) is None
    for text in ("bad allocation", "CUDA failure 2: out of memory ; GPU=0"):
        assert isinstance(explain_memory_failure(text, CPU), MemoryLimitError)


def test_memory_of_a_gpu_is_not_that_of_the_job() -> None:
    text = "Failed to allocate memory for requested buffer of size 12582912"
    expected = (
        f"There is not enough memory for {CUDA}: ONNX Runtime could not allocate more: {text}. Take a smaller "
        "batch_size, or the provider cpu."
    )
    assert str(explain_memory_failure(text, CUDA)) == expected
    assert "limit" in str(explain_memory_failure(text, CPU))


def test_the_limit_is_the_soft_one() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    assert read_address_space_limit() == (None if soft == resource.RLIM_INFINITY else soft)


@pytest.mark.parametrize(
    ("n_cpus", "n_processes", "n_startable", "n_tried", "is_limited"),
    [
        (4, 10_001, 0, None, False),
        (4, 10_000, 24, 24, False),
        (4, 100, 23, 24, True),
        (24, 100, 64, 64, False),
        (25, 10_000, 10_000, None, True),
        (256, 10_001, 10_000, None, False),
    ],
)
def test_few_threads_are_started_to_find_out_whether_they_are_limited(
    monkeypatch: pytest.MonkeyPatch,
    n_cpus: int,
    n_processes: int,
    n_startable: int,
    n_tried: int | None,
    is_limited: bool,
) -> None:
    tried: list[int] = []

    def start(wanted: int) -> int:
        tried.append(wanted)
        return min(wanted, n_startable)

    monkeypatch.setattr(address_space, "read_address_space_limit", lambda: None)
    monkeypatch.setattr(address_space, "read_process_limit", lambda: n_processes)
    monkeypatch.setattr(address_space, "count_startable_threads", start)
    monkeypatch.setattr(os, "cpu_count", lambda: n_cpus)
    assert address_space._is_limited.__wrapped__() is is_limited
    assert tried == ([] if n_tried is None else [n_tried])
