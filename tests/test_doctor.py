"""``pxdbg doctor``: what it finds on this machine, and on machines that lack something."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import platform
import signal
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnxruntime
import packaging.requirements
import pytest
from msgspec.structs import replace

from pxdbg_runtime.diagnosis import extras, generation, machine
from pxdbg_runtime.diagnosis.extras import Requirement, diagnose_extras, list_requirements
from pxdbg_runtime.errors import KnownAnswerError, MemoryLimitError, ThreadLimitError
from pxdbg_runtime.inference.cpu import Cpu
from pxdbg_runtime.inference.providers import CPU, CUDA
from tests.graphs import LATENT_CARD, latent_model, write_graph
from tests.test_command_line import invoke, words

if TYPE_CHECKING:
    from pxdbg_runtime.diagnosis.finding import Finding
    from pxdbg_runtime.model.graph_file import GraphFile

PYPROJECT: Final = Path(__file__).resolve().parent.parent / "pyproject.toml"
PROJECT: Final[dict[str, Any]] = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
METADATA: Final = (
    "numpy>=1.26",
    "onnxruntime-gpu[cuda,cudnn]>=1.21; extra == 'gpu'",
    "root>=0.1a12; (sys_platform == 'linux' and platform_machine == 'x86_64') and extra == 'root'",
    'onnx-ir>=0.2; extra == "export"',
    "httpx; extra == 'export'",
)


def by_subject(findings: list[Finding]) -> dict[str, Finding]:
    found = {finding.subject: finding for finding in findings}
    assert len(found) == len(findings)
    return found


def need(name: str, oldest: str = "0", extra: str | None = "toy") -> Requirement:
    return Requirement(name=name, oldest=oldest, extra=extra)


def diagnose_extra(*needed: Requirement, imports: bool = True) -> Finding:
    (finding,) = diagnose_extras(needed, imports=imports)
    return finding


def test_this_machine_can_generate(latent_graph: GraphFile) -> None:
    result = invoke("doctor", latent_graph.path, "--quick")
    assert result.exit_code == 0, result.output
    page = words(result.stdout)
    assert "This machine can generate events." in page
    assert f"onnxruntime {onnxruntime.__version__}; offers" in page
    assert f"choice of auto ok {latent_graph.card.name} float32 on CPUExecutionProvider" in page
    assert "compiled kernels" in page
    assert "time of an event" not in page


def test_the_time_is_that_of_all_sensors(latent_graph: GraphFile, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.1, 1.0, 1.3, 2.0, 2.2])  # 0.1, 0.3 and 0.2 s for the one image of a call
    monkeypatch.setattr("time.perf_counter", lambda: next(clock, 3.0))
    findings = by_subject(list(generation.diagnose_generation(latent_graph.path)))
    assert findings["time of an event"].state == "ok"
    assert findings["time of an event"].text == "about 8 s, 450 an hour in one process (1 of 40 images, timed 3 times)"


def test_a_machine_without_onnx_runtime_cannot(monkeypatch: pytest.MonkeyPatch, latent_graph: GraphFile) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = invoke("doctor", latent_graph.path, "--quick")
    assert result.exit_code == 1
    page = words(result.stdout)
    assert "which is not installed: pip install 'pxdbg-runtime[cpu]'" in page
    assert "This machine cannot generate events: ONNX Runtime. See docs/running.md#providers\n" in result.stdout
    assert "choice of auto" not in page


def test_a_missing_graph_is_no_fault_of_the_machine(tmp_path: Path) -> None:
    result = invoke("doctor", tmp_path / "gone.onnx", "--quick")
    assert result.exit_code == 1
    assert "gone.onnx' is not a file that exists: expected convnet or ieagan or resnet" in words(result.stderr)
    assert "cannot generate events" not in result.stdout


@pytest.mark.parametrize(
    ("name", "error", "subject"),
    [
        ("require_address_space_for_libraries", MemoryLimitError(1, "It needs 420 MB more."), "memory to start"),
        ("prepare_threads", ThreadLimitError(3, 1, "Only 1 thread starts."), "CPUs, threads"),
    ],
)
def test_limits_that_are_too_low_are_failures(
    monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, subject: str
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(machine, name, refuse)
    finding = by_subject(list(machine.diagnose_job()))[subject]
    assert (finding.state, finding.text) == ("fails", str(error))


def test_a_wrong_known_image_is_a_failure(monkeypatch: pytest.MonkeyPatch, latent_graph: GraphFile) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise KnownAnswerError(CPU, "1.25", 0.5, "It computes the graph wrongly.")

    monkeypatch.setattr(generation, "Generator", refuse)
    (finding,) = generation.diagnose_generation(latent_graph.path)
    assert (finding.subject, finding.state) == ("known image", "fails")


def test_a_graph_without_known_answers_is_told(tmp_path: Path) -> None:
    graph = write_graph(tmp_path / "old.onnx", latent_model(), replace(LATENT_CARD, known_answers=None))
    findings = by_subject(list(generation.diagnose_generation(graph.path, timing=False)))
    assert findings["known image"].state == "note"
    assert "export the checkpoint again" in findings["known image"].text


def test_a_demonstration_causes_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    card = replace(LATENT_CARD, nature="demonstration")
    graph = write_graph(tmp_path / "toy.onnx", latent_model(), card)
    with caplog.at_level(logging.INFO, logger="pxdbg_runtime"):
        list(generation.diagnose_generation(graph.path, timing=False))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_cgroup_that_is_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "read_memory_limit", lambda: 500_000_000)
    finding = machine.diagnose_memory("int8", 2, 40 * 128)
    assert finding.state == "note"
    assert finding.text.startswith("an event reserves up to about 510 MB; ")
    assert "memory (cgroup): 500 MB: the job may be killed" in finding.text
    monkeypatch.setattr(machine, "read_memory_limit", lambda: 700_000_000)
    assert machine.diagnose_memory("int8", 2, 40 * 128).state == "ok"
    assert machine.diagnose_memory("float32", 2, 40 * 128).state == "note"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx2", "avx512f", "avx512_vnni"}, "a CPU; AVX-512; instructions for int8: avx512_vnni"),
        ({"avx2"}, "a CPU; AVX2; instructions for int8: none, so int8 takes longer here, with the same digits"),
        ({"asimd", "asimddp"}, "a CPU; Advanced SIMD; instructions for int8: asimddp"),
    ],
)
def test_the_instructions_of_the_cpu(monkeypatch: pytest.MonkeyPatch, features: set[str], expected: str) -> None:
    products = tuple(sorted(features & {"avx512_vnni", "asimddp"}))
    cpu = Cpu(name="a CPU", dot_products=products, features=frozenset(features))
    monkeypatch.setattr(machine, "detect_cpu", lambda: cpu)
    assert by_subject(list(machine.diagnose_job()))["CPU"].text == expected


def test_a_gpu_that_onnx_runtime_does_not_use_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    finding = by_subject(list(machine.diagnose_installation(())))["NVIDIA GPU"]
    assert finding.state == "note"
    assert finding.text.startswith("there is an NVIDIA driver. The provider cuda needs onnxruntime-gpu, but ")
    assert "pip install 'pxdbg-runtime[gpu]'" in finding.text
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    assert by_subject(list(machine.diagnose_installation(())))["NVIDIA GPU"].state == "ok"


def test_kernels_that_are_not_kept_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.diagnose_cache().text.startswith("kept in ")
    monkeypatch.setattr("pxdbg_runtime.digitisation.jit.find_cache_folder", lambda _: tmp_path / "gone")
    assert machine.diagnose_cache().state == "note"
    assert "gone cannot be written to (No such file or directory): each process" in machine.diagnose_cache().text
    monkeypatch.setattr("pxdbg_runtime.digitisation.jit.find_cache_folder", lambda _: None)
    assert machine.diagnose_cache().state == "note"
    assert "NUMBA_CACHE_DIR" in machine.diagnose_cache().text


@pytest.fixture
def _on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.usefixtures("_on_linux")
def test_requirements_come_from_the_metadata() -> None:
    assert list_requirements(METADATA) == (
        need("numpy", "1.26", None),
        need("onnxruntime-gpu", "1.21", "gpu"),
        need("root", "0.1", "root"),
        need("onnx-ir", "0.2", "export"),
        need("httpx", "0", "export"),
    )
    assert [each.import_name for each in list_requirements(METADATA)][1:4] == ["onnxruntime", "ROOT", "onnx_ir"]


@pytest.mark.parametrize(
    ("system", "processor"), [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"), ("darwin", "x86_64")]
)
def test_requirements_of_other_platforms_are_left_out(
    monkeypatch: pytest.MonkeyPatch, system: str, processor: str
) -> None:
    """As `packaging`, which pip uses, reads the markers of pyproject.toml."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    environment = {"sys_platform": system, "platform_machine": processor}
    lines = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    parsed = [packaging.requirements.Requirement(line) for line in lines]
    expected = [each.name for each in parsed if each.marker is None or each.marker.evaluate(environment)]
    assert [each.name for each in list_requirements(lines)] == expected
    assert (len(expected) < len(lines)) == ((system, processor) != ("linux", "x86_64"))


def test_import_names_are_those_of_the_packages() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    installed = [each for each in list_requirements(lines) if extras.find_version(each.name) is not None]
    assert installed
    assert [each.name for each in installed if importlib.util.find_spec(each.import_name) is None] == []


def test_a_required_package_that_is_too_old_is_to_be_upgraded() -> None:
    finding = by_subject(list(machine.diagnose_installation([need("numpy", "99.0", None)])))["packages"]
    assert finding.state == "fails"
    assert finding.text.endswith(": pip install -U 'numpy>=99.0'")


def test_extras_that_are_installed() -> None:
    finding = diagnose_extra(need("pyarrow", "17"))
    assert (finding.subject, finding.state) == ("extra toy", "ok")
    assert finding.text.startswith("pyarrow ")


def test_extras_of_onnx_runtime_are_left_out() -> None:
    assert list(diagnose_extras([need("onnxruntime", extra="cpu"), need("numpy", extra=None)])) == []


def test_a_missing_extra_is_told_with_its_installation() -> None:
    finding = diagnose_extra(need("no-such-package"), need("numpy"))
    assert (finding.state, finding.text) == (
        "missing",
        "no-such-package not installed: pip install 'pxdbg-runtime[toy]'",
    )


def test_an_old_extra_is_to_be_upgraded() -> None:
    finding = diagnose_extra(need("numpy", "99"))
    assert finding.state == "broken"
    assert finding.text.endswith("; expected numpy 99 or newer: pip install -U 'pxdbg-runtime[toy]'")


def test_a_broken_extra_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_version", lambda _: "1.0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "broken_one.py").write_text("raise ImportError('libfoo.so.1: cannot open shared object file')")
    (tmp_path / "broken_two.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    first = diagnose_extra(need("broken-one"))
    assert first.state == "broken"
    assert "1.0; does not import (ImportError: libfoo.so.1: cannot open shared object file): pip install" in first.text
    assert f"ended by {signal.SIGILL.name}" in diagnose_extra(need("broken-two")).text
    assert diagnose_extra(need("broken-one"), imports=False).state == "ok"
    assert capfd.readouterr() == ("", "")
