"""Installations of ONNX Runtime that do not work: one sentence with the command that installs it again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING, Final

import onnxruntime
import pytest

from pxdbg_runtime.errors import BrokenPackageError, MissingPackageError
from pxdbg_runtime.inference import providers

if TYPE_CHECKING:
    from pathlib import Path

# A finder puts the fakes before the installed package, which a folder without code does not hide by itself.
IMPORT_EACH: Final = """
import importlib.machinery, importlib.util, sys
class Finder:
    folder = None
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.PathFinder.find_spec(name, [self.folder]) if name == "onnxruntime" else None
finder = Finder()
sys.meta_path.insert(0, finder)
"""
TRY_EACH: Final = (
    IMPORT_EACH
    + """
from pxdbg_runtime.errors import MissingPackageError
from pxdbg_runtime.inference.providers import import_onnxruntime
for finder.folder in sys.argv[1:]:
    for name in [each for each in sys.modules if each.partition(".")[0] == "onnxruntime"]:
        del sys.modules[name]
    try:
        print("accepted", import_onnxruntime().__version__)
    except MissingPackageError as error:
        print(error)
"""
)
RUN_COMMAND: Final = (
    IMPORT_EACH
    + """
from pxdbg_runtime.command_line import app
finder.folder = sys.argv.pop(1)
app()
"""
)
AGAIN: Final = "Install it again: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'pxdbg-runtime[cpu]'."
INIT: Final = "onnxruntime/__init__.py"
WHOLE: Final = "\n".join(f"{name} = object()" for name in ("InferenceSession", "RunOptions", "SessionOptions"))


def write_fake(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


FAKES: Final[dict[str, tuple[dict[str, str | bytes], str]]] = {
    "left behind": (
        {"onnxruntime/capi/__pycache__/_state.pyc": b""},
        r"left behind.onnxruntime lacks InferenceSession, Run",
    ),
    "script of the same name": ({"onnxruntime.py": "x = 1"}, r"onnxruntime\.py lacks InferenceSession, RunOptions"),
    "no version": ({INIT: WHOLE}, r"__init__\.py lacks __version__, get_available_providers\. Found"),
    "partly initialised": (
        {INIT: "from onnxruntime import InferenceSession"},
        "cannot import name 'InferenceSession' from partially initialized module",
    ),
    "executable stack": (
        {INIT: "raise ImportError('cannot enable executable stack as shared object requires')"},
        "cannot enable executable stack",
    ),
    "libstdc++": (
        {INIT: 'raise OSError("/lib64/libstdc++.so.6: version `GLIBCXX_3.4.32\' not found")'},
        r"version `GLIBCXX_3\.4\.32' not found",
    ),
    "another platform": (
        {INIT: "from onnxruntime import core", f"onnxruntime/core{EXTENSION_SUFFIXES[0]}": b"MZ not for this system"},
        r"it does not import \(.*core.*\)",
    ),
    "interrupted installation": (
        {INIT: "from onnxruntime.capi import onnxruntime_pybind11_state"},
        r"No module named 'onnxruntime\.capi'",
    ),
    "another NumPy": ({INIT: "raise AttributeError('_ARRAY_API not found')"}, "_ARRAY_API not found"),
}
RELEASES: Final[dict[str, dict[str, str | bytes]]] = {
    version: {INIT: f"__version__ = {version!r}\n{WHOLE}\ndef get_available_providers(): ..."}
    for version in ("1.17.0", "1.20.1", "1.21.0", "1.30.0.dev20260101", "2.0.0+cu12")
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Import each of the fakes in one process, and collect what is said."""
    folder = tmp_path_factory.mktemp("fakes")
    fakes = {name: files for name, (files, _) in FAKES.items()} | RELEASES
    folders = [str(write_fake(folder / name, files)) for name, files in fakes.items()]
    command = [sys.executable, "-c", TRY_EACH, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(fakes, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("name", FAKES)
@pytest.mark.slow
def test_an_installation_that_is_broken_is_to_be_made_anew(name: str, answers: dict[str, str]) -> None:
    assert answers[name].startswith("ONNX Runtime is installed, but does not work: ")
    assert re.search(FAKES[name][1], answers[name])
    assert answers[name].endswith(f" Found onnxruntime {onnxruntime.__version__}. {AGAIN}")


@pytest.mark.parametrize("version", ["1.17.0", "1.20.1"])
def test_an_old_release_is_to_be_upgraded(version: str, answers: dict[str, str]) -> None:
    assert answers[version] == (
        f"ONNX Runtime {version} is too old: expected 1.21 or newer; upgrade: pip install -U 'onnxruntime>=1.21'."
    )


@pytest.mark.parametrize("version", ["1.21.0", "1.30.0.dev20260101", "2.0.0+cu12"])
def test_newer_releases_are_accepted(version: str, answers: dict[str, str]) -> None:
    assert answers[version] == f"accepted {version}"


@pytest.mark.parametrize("name", ["left behind", "executable stack"])
def test_the_command_that_diagnoses_it_says_so(name: str, tmp_path: Path) -> None:
    folder = write_fake(tmp_path / name, FAKES[name][0])
    command = [sys.executable, "-c", RUN_COMMAND, str(folder), "providers"]
    environment = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ONNX Runtime is installed, but does not work: ")
    assert done.stderr.endswith(f"{AGAIN}\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("wheels", "found", "extra"),
    [
        (
            {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.29.0"},
            "Found onnxruntime 1.30.0 and onnxruntime-gpu 1.29.0, which overwrite each other.",
            "gpu",
        ),
        ({"onnxruntime-gpu": "1.29.0"}, "Found onnxruntime-gpu 1.29.0.", "gpu"),
        ({}, "Found no wheel that pip knows.", "cpu"),
    ],
)
def test_what_pip_knows_is_said(
    monkeypatch: pytest.MonkeyPatch, wheels: dict[str, str], found: str, extra: str
) -> None:
    monkeypatch.setattr(providers, "find_onnxruntime_wheels", lambda: wheels)
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(BrokenPackageError, match=rf"lacks InferenceSession\. {re.escape(found)} Install it") as caught:
        providers.import_onnxruntime()
    assert str(caught.value).endswith(f"pip install 'pxdbg-runtime[{extra}]'.")
    assert (caught.value.package, caught.value.extra) == ("onnxruntime", extra)
    assert isinstance(caught.value, MissingPackageError)


def test_an_old_gpu_wheel_is_upgraded_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "find_onnxruntime_wheels", lambda: {"onnxruntime-gpu": "1.18.1"})
    monkeypatch.setattr(onnxruntime, "__version__", "1.18.1")
    with pytest.raises(
        BrokenPackageError, match=r"1\.18\.1 is too old: .*: pip install -U 'onnxruntime-gpu>=1\.21'\.$"
    ):
        providers.import_onnxruntime()
