"""The wheel as users install it, and as grid sites run it."""

from __future__ import annotations

import base64
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pxdbg_runtime import Generator
from pxdbg_runtime.formats import read_digits
from tests.isolation import run_isolated

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
MAX_MEMORY_KB = 600 * 1000
WHEEL_PYTHON = "PXDBG_WHEEL_PYTHON"
"""Environment variable with the Python of an environment into which the wheel of this checkout is installed."""

# Runs in the job slot: proves that the slot is as bad as it should be, then generates an event.
JOB = """
import os, resource, socket, sys, sysconfig
from pathlib import Path

for folder in (sysconfig.get_path("purelib"), os.environ["HOME"], "/var/tmp"):
    try:
        Path(folder, "probe").touch()
    except OSError:
        continue
    sys.exit(f"{folder} can be written to")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    pass
else:
    sys.exit("there is a network")
assert len(os.sched_getaffinity(0)) == 1
assert resource.getrlimit(resource.RLIMIT_AS)[0] == 2 << 30

from pxdbg_runtime.command_line import app

app(["generate", "--events", "1", "--seed", "7", "--output", "event.npz"], standalone_mode=False)
peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
heavy = {"torch", "onnx", "export"} & sys.modules.keys()
print(f"peak_kb={peak_kb} heavy={sorted(heavy)}")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that holds the wheel and its extra for the CPU, of `make wheel-check` where CI names it.

    To install pip there and to compile all modules would take longer than the installation itself; pip takes ten times
    as long as uv, which `make test` installs.
    """
    if WHEEL_PYTHON in os.environ:
        return Path(os.environ[WHEEL_PYTHON])
    environment = tmp_path_factory.mktemp("site") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    install = ["pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet", "--no-compile"]
    if importlib.util.find_spec("uv") is not None:
        install = ["uv", "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([sys.executable, "-m", *install, f"{wheel}[cpu]"], check=True, capture_output=True)
    return python


def test_the_wheel_holds_the_package_and_the_graphs_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pxdbg_runtime"}
    assert "pxdbg_runtime/artifacts/resnet-float32.onnx" in names
    assert "pxdbg_runtime/py.typed" in names


def test_the_core_needs_neither_pytorch_nor_onnx_nor_a_wheel_of_onnx_runtime(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    needed = {line.split()[1] for line in lines if line.startswith("Requires-Dist:") and "extra" not in line}
    assert {name.split(">")[0] for name in needed} == {
        "numpy",
        "numba",
        "msgspec",
        "typer",
        "rich",
        "platformdirs",
        "filelock",
    }


def test_without_onnx_runtime_the_message_names_both_extras(installation: Path) -> None:
    blocked = "import sys; sys.modules['onnxruntime'] = None\nfrom pxdbg_runtime import Generator\nGenerator('resnet')"
    done = subprocess.run([str(installation), "-I", "-c", blocked], capture_output=True, text=True, check=False)
    assert "pxdbg-runtime[cpu]" in done.stderr
    assert "pxdbg-runtime[gpu]" in done.stderr


def test_an_event_in_a_job_slot_without_a_writable_disk_or_a_network(installation: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.py"
    job.write_text(JOB)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # The scratch disk goes with its namespace, so the event leaves through the standard output.
    run = f"ulimit -v {2 << 20}; taskset -c 0 '{installation}' -I '{job}'; cat event.npz | base64 -w0"
    done = run_isolated(run, scratch, scratch_mib=16)
    assert done.returncode == 0, done.stderr
    said, encoded = done.stdout.rsplit("\n", 1)
    assert "heavy=[]" in said
    assert int(said.split("peak_kb=")[1].split()[0]) < MAX_MEMORY_KB
    event = tmp_path / "event.npz"
    event.write_bytes(base64.b64decode(encoded))
    assert read_digits(event).digits == Generator(seed=7).generate(0)


def test_a_full_disk_leaves_nothing_behind(installation: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    fill = "head -c 980000 /dev/zero > filler"
    pxdbg = installation.with_name("pxdbg")
    run = f"{fill}; '{pxdbg}' generate --events 1 --seed 7 --output event.npz || echo exit=$?; ls -A"
    done = run_isolated(run, scratch, scratch_mib=1)
    assert "exit=1" in done.stdout
    assert "event.npz cannot be written: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split("exit=1\n")[1].split() == ["filler"]
