"""Commands of the export without PyTorch: those that need it name the install command, the others work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from export.packages import require_packages
from pxdbg_runtime.errors import MissingPackageError

CHECKOUT: Final = Path(__file__).resolve().parent.parent
SCRIPT: Final = """
import contextlib, io, json, runpy, sys
for name in ("torch", "onnx", "onnxscript", "onnx_ir", "safetensors", "scipy"):
    sys.modules[name] = None
found = []
for module, *arguments in json.loads(sys.argv[1]):
    sys.argv = [module, *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as stdout, contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as error:
            code = error.code or 0
    found.append((code, stdout.getvalue(), stderr.getvalue()))
    for name in [name for name in sys.modules if name.startswith(("export", "pxdbg_runtime.command_line"))]:
        del sys.modules[name]
print(json.dumps(found))
"""
NEEDS: Final = " needs torch, which is not installed: pip install 'pxdbg-runtime[export]'.\n"


@pytest.mark.slow
def test_commands_without_pytorch_work_or_say_how_to_install_it(tmp_path: Path) -> None:
    graph = Path(shutil.copy(CHECKOUT / "artifacts" / "resnet-int8.onnx", tmp_path))
    train = ("train", "--family", "resnet", "--output", "a.safetensors")
    commands: dict[tuple[str, ...], tuple[int, str, str]] = {
        ("export", "--help"): (0, "Needs PyTorch and onnx: pip install 'pxdbg-runtime[export]'", ""),
        ("export", "a.pt", "--family", "resnet", "--output", "graphs"): (1, "", f"Error: python -m export{NEEDS}"),
        ("export", "payload", "--help"): (0, "Example: python -m export payload graphs", ""),
        ("artifacts.standins", "--help"): (0, "simulate", ""),
        ("artifacts.standins", "rebuild", "a", "--output", "b"): (
            1,
            "",
            f"Error: python -m artifacts.standins rebuild{NEEDS}",
        ),
        ("export.demonstration", *train[1:]): (1, "", f"Error: python -m export.demonstration{NEEDS}"),
        ("export.manifest", str(tmp_path)): (0, f"resnet int8: {graph.name}, ", ""),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(list(commands))],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for command, found, (code, stdout, stderr) in zip(
        commands, json.loads(done.stdout), commands.values(), strict=True
    ):
        assert (found[0], found[2]) == (code, stderr), command
        assert stdout in found[1], command
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", graph.name]


@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnx_ir", "onnxruntime", "safetensors"])
def test_each_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    expected = rf"^A test needs {module}, which is not installed: pip install 'pxdbg-runtime\[export\]'\.$"
    with pytest.raises(MissingPackageError, match=expected):
        require_packages("A test")


@pytest.mark.parametrize("module", ["export.pipeline", "export.conditions.command", "artifacts.standins.rebuild"])
def test_scipy_is_not_needed(module: str) -> None:
    script = f"import sys; sys.modules['scipy'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_installed_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "onnxscript", raising=False)
    require_packages("A test")
    assert "onnxscript" not in sys.modules
