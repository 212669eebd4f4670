"""What is read of a CPU, from the words of Linux."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pxdbg_runtime.inference.cpu import Cpu, detect_cpu

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INTEL = """\
processor\t: 0
model name\t: Some Xeon @ 2.00GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni avx_vnni

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    """Forget what was read, since a folder that passed tests leave behind may be taken again."""
    detect_cpu.cache_clear()
    yield
    detect_cpu.cache_clear()


@pytest.mark.parametrize(
    ("text", "name", "dot_products"),
    [
        (INTEL, "Some Xeon @ 2.00GHz", ("avx512_vnni", "avx_vnni")),
        (INTEL.replace("avx512_vnni avx_vnni", "avx512bw"), "Some Xeon @ 2.00GHz", ()),
        (INTEL.replace("avx512_vnni", "xavx512_vnni").replace(" avx_vnni", ""), "Some Xeon @ 2.00GHz", ()),
        ("model name: A\nFeatures : fp asimd asimddp\n", "A", ("asimddp",)),
        (
            "CPU implementer\t: 0x41\nCPU part\t: 0xd40\nFeatures\t: asimddp\n",
            f"{platform.machine()}, implementer 0x41, part 0xd40",
            ("asimddp",),
        ),
        ("", None, None),
        ("no colon at all\n", None, None),
    ],
)
def test_the_first_processor_is_read(
    tmp_path: Path, text: str, name: str | None, dot_products: tuple[str, ...] | None
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    cpu = detect_cpu(path)
    assert cpu.dot_products == dot_products
    assert cpu.has_dot_products == bool(dot_products)
    assert cpu.name == name if name else cpu.name


def test_a_system_without_the_file_is_known_by_name_alone(tmp_path: Path) -> None:
    cpu = detect_cpu(tmp_path / "gone")
    assert cpu == Cpu(name=cpu.name, dot_products=None, features=frozenset())


def test_this_machine_has_a_name() -> None:
    assert detect_cpu().name


def test_macos_is_asked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["-n", "machdep.cpu.brand_string"]
        return subprocess.CompletedProcess(command, 0, stdout="Apple M3\n")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", run)
    assert detect_cpu(tmp_path / "of macOS").name == "Apple M3"


def test_windows_is_asked_for_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def open_key(root: int, name: str) -> Iterator[str]:
        assert (root, name) == (7, "HARDWARE\\DESCRIPTION\\System\\CentralProcessor\\0")
        yield "a key"

    registry = SimpleNamespace(
        HKEY_LOCAL_MACHINE=7, OpenKey=open_key, QueryValueEx=lambda _key, name: (f" Some CPU of {name} ", 1)
    )
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setitem(sys.modules, "winreg", registry)
    assert detect_cpu(tmp_path / "of Windows").name == "Some CPU of ProcessorNameString"


@pytest.mark.parametrize("system", ["Darwin", "Windows", "FreeBSD"])
def test_a_system_that_does_not_answer_leaves_the_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(subprocess, "run", fail)
    monkeypatch.setitem(sys.modules, "winreg", None)
    assert detect_cpu(tmp_path / f"of {system}").name == platform.machine()
