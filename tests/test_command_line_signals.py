"""Signals that end a job: no file stays, one sentence, exit code 128 + signal; further signals change nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace

from artifacts.standins.__main__ import app as standin_app
from benchmarks.__main__ import app as benchmarks_app
from export.__main__ import app as export_app
from export.payload import app as payload_app
from pxdbg_runtime.command_line import app as pxdbg_app
from pxdbg_runtime.command_line import signals
from pxdbg_runtime.command_line.console import report_failures
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.command_line.progress import track
from pxdbg_runtime.errors import InferenceError
from pxdbg_runtime.formats.atomic_write import atomic_write
from tests.graphs import LATENT_CARD, latent_model, write_graph

if TYPE_CHECKING:
    from collections.abc import Iterator

    import typer

    from pxdbg_runtime.model.graph_file import GraphFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")

CHECKOUT: Final = Path(__file__).resolve().parent.parent
NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU", "SIGUSR1", "SIGUSR2")
PXDBG: Final = """
import signal
for name in ("SIGINT", "SIGHUP"):  # whoever runs the tests may ignore them
    signal.signal(getattr(signal, name), signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from pxdbg_runtime.command_line import app
app(prog_name="pxdbg")
"""
TOOL: Final = """
import atexit, sys, time
from pathlib import Path
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.command_line.program import Program

app = Program("tool")

def work(path: Path, phase: str) -> None:
    if phase == "shutdown":
        atexit.register(lambda: time.sleep(1))
        atexit.register(lambda: print("ready", flush=True))
    with atomic_write(path) as partial:
        try:
            partial.write_text("half")
            if phase == "clean-up":
                print("ready", flush=True)
                time.sleep(30)
        finally:
            if phase == "clean-up":
                print("cleaning", flush=True)
                time.sleep(0.5)
                print("clean", flush=True)

app.command()(work)
app()
"""


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a script; kill its processes at the end."""
    processes: list[subprocess.Popen[str]] = []

    def start_script(script: str, *arguments: str | Path, folder: Path) -> subprocess.Popen[str]:
        code = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{script}"
        command, pipe = [sys.executable, "-c", code, *map(str, arguments)], subprocess.PIPE
        process = subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)
        processes.append(process)
        return process

    yield start_script
    for process in processes:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def defaults() -> Iterator[None]:
    """Set the default handler of each signal, and restore the former one at the end."""
    numbers = [getattr(signal, name) for name in NAMES]
    before = [signal.getsignal(number) for number in numbers]
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signals._current = None
    yield
    signals._current = None
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def exit_code(command: Callable[[], None]) -> int:
    app = Program("tool")
    app.command()(command)
    with pytest.raises(SystemExit) as ended:
        app([])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    return write_graph(
        tmp_path_factory.mktemp("signals") / "tiny.onnx", latent_model(), replace(LATENT_CARD, min_charge=20)
    )


@pytest.mark.slow
def test_a_signal_ends_generate_and_leaves_nothing(tmp_path: Path, graph: GraphFile, start: Start) -> None:
    processes = []
    for number, name in enumerate(("SIGTERM", "SIGINT", "SIGXCPU")):
        folder = tmp_path / name
        folder.mkdir()
        output = f"bg{'.parquet' if number % 2 else '.npz'}"
        options = ("--model", graph.path, "--events", "1000000", "--output", output)
        processes.append((name, folder, start(PXDBG, "generate", *options, folder=folder)))
    for number, (name, folder, process) in enumerate(processes):
        deadline = time.monotonic() + 60
        while not list(folder.glob(".bg.*.partial")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05 * number)  # at another moment of an event
        for wait_s in (0.002, 0.05, 0.05):  # others come soon, and during the clean-up
            process.send_signal(getattr(signal, name))
            time.sleep(wait_s)
    for name, folder, process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 128 + getattr(signal, name), stderr
        assert stderr.splitlines()[-1] == f"pxdbg generate was stopped by {name}: nothing was written."
        assert "Traceback" not in stderr
        assert "terminate" not in stderr
        assert "Error" not in stderr
        assert stdout == ""
        assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_more_signals_change_nothing_in_the_clean_up_and_when_the_interpreter_ends(
    tmp_path: Path, start: Start
) -> None:
    phases = ("clean-up", "shutdown")
    processes = {phase: start(TOOL, f"{phase}.txt", phase, folder=tmp_path) for phase in phases}
    for phase, process in processes.items():
        assert line_of(process) == "ready\n"
        process.send_signal(signal.SIGUSR1)
        if phase == "clean-up":
            assert line_of(process) == "cleaning\n"
        for name in NAMES * 3:
            process.send_signal(getattr(signal, name))
            time.sleep(0.005)
    done = {phase: (*process.communicate(timeout=30), process.returncode) for phase, process in processes.items()}
    assert done["clean-up"] == ("clean\n", "tool was stopped by SIGUSR1: nothing was written.\n", 128 + signal.SIGUSR1)
    assert done["shutdown"] == ("", "", 0)
    assert [path.name for path in tmp_path.iterdir()] == ["shutdown.txt"]


def test_a_signal_that_the_parent_ignores_stays_ignored(tmp_path: Path, start: Start) -> None:
    """As under nohup."""
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = start(ignoring + TOOL, "x.txt", "clean-up", folder=tmp_path)
    assert line_of(process) == "ready\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired, match="timed out"):
        process.wait(0.2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert stderr == "tool was stopped by SIGTERM: nothing was written.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("name", NAMES)
def test_an_error_on_the_way_out_does_not_hide_the_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """ONNX Runtime reports an interrupted run as a failure."""

    def command() -> None:
        with report_failures(), atomic_write(tmp_path / "x"):
            try:
                signal.raise_signal(getattr(signal, name))
            finally:
                message = "the run was ended"
                raise InferenceError(message)

    assert exit_code(command) == 128 + getattr(signal, name)
    assert capsys.readouterr().err == f"tool was stopped by {name}: nothing was written.\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(getattr(signal, name)) is signal.SIG_IGN  # until the process ends


@pytest.mark.usefixtures("defaults")
def test_the_message_names_the_files_that_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        for name in ("a.txt", "b.txt"):
            with atomic_write(tmp_path / name) as partial:
                partial.write_text("whole")
        with atomic_write(tmp_path / "c.txt"):
            signal.raise_signal(signal.SIGTERM)

    assert exit_code(command) == 143
    expected = f"tool was stopped by SIGTERM: {tmp_path}/a.txt, {tmp_path}/b.txt had been written.\n"
    assert capsys.readouterr().err == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]


class Careless:
    """Receives a signal where Python drops exceptions, as in calls from C."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("way", ["the next item", "the next signal", "after C", "in a wait"])
def test_a_signal_whose_exception_was_dropped_ends_the_command(capsys: pytest.CaptureFixture[str], way: str) -> None:
    came: list[int] = []

    def command() -> None:
        items = track(range(5), total=5, description="steps") if way == "the next item" else range(5)
        for number in items:
            came.append(number)
            if number == 1 and way == "after C":
                Careless()
                time.sleep(10)
            elif number == 1:
                with suppress(BaseException):
                    signal.raise_signal(signal.SIGTERM)
                if way == "in a wait":
                    threading.Event().wait(10)
            elif number == 2:
                signal.raise_signal(signal.SIGUSR2)

    assert exit_code(command) == 143
    assert came == ([0, 1, 2] if way == "the next signal" else [0, 1])
    assert capsys.readouterr().err.endswith("tool was stopped by SIGTERM: nothing was written.\n")


@pytest.mark.usefixtures("defaults")
def test_handlers_are_there_while_a_command_runs_but_for_those_of_others_and_other_threads() -> None:
    seen: dict[str, object] = {}

    def command() -> None:
        seen.update((name, signal.getsignal(getattr(signal, name))) for name in NAMES)

    def handle(_number: int, _frame: object) -> None: ...

    assert exit_code(command) == 0
    assert [getattr(seen[name], "__name__", "") for name in NAMES] == ["_handle"] * len(NAMES)
    assert all(signal.getsignal(getattr(signal, name)) is signal.SIG_DFL for name in NAMES)
    signal.signal(signal.SIGUSR1, handle)
    assert exit_code(command) == 0
    assert seen["SIGUSR1"] is handle
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(exit_code(command)))
    thread.start()
    thread.join()
    assert (codes, seen["SIGUSR1"], seen["SIGUSR2"]) == ([0], handle, signal.SIG_DFL)


@pytest.mark.usefixtures("defaults")
@pytest.mark.parametrize("missing", [NAMES[2:], ("SIGHUP",)])
def test_platforms_that_lack_signals(monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]) -> None:
    for name in missing:
        monkeypatch.delattr(signal, name)
    assert exit_code(lambda: signal.raise_signal(signal.SIGTERM)) == 143


@pytest.mark.parametrize("app", [pxdbg_app, export_app, payload_app, standin_app, benchmarks_app])
def test_every_command_line_handles_signals(app: typer.Typer) -> None:
    assert isinstance(app, Program)
    assert app.info.name in {
        "pxdbg",
        "python -m export",
        "python -m export payload",
        "python -m artifacts.standins",
        "python -m benchmarks",
    }


def test_the_report_names_commands_as_users_type_them() -> None:
    app = Program("tool")

    def replace_it() -> None: ...

    def show() -> None: ...

    for command in (replace_it, show):
        app.command()(command)
    assert app._format_command([["--verbose", "replace-it", "show.root"]]) == "tool replace-it"
