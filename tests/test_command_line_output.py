"""Output to streams that fail, in poor encodings and to logs, and texts with control characters."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from msgspec.structs import replace
from rich.table import Table
from rich.text import Text

from pxdbg_runtime import Digits
from pxdbg_runtime.command_line import output_streams
from pxdbg_runtime.command_line.console import log_to_terminal, stderr, stdout
from pxdbg_runtime.command_line.safe_text import keep_colours, make_safe
from pxdbg_runtime.formats import open_writer, read_digits
from tests.digit_files import PROVENANCE
from tests.graphs import LATENT_CARD, latent_model, write_graph
from tests.test_command_line import invoke

if TYPE_CHECKING:
    from pxdbg_runtime.model.graph_file import GraphFile

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PXDBG: Final = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from pxdbg_runtime.command_line import app; app()"
EVIL: Final = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2066:100: [red]"
SAFE: Final = r"\x1b]0;title\x07\x1b[2J\x9b31m\u202eevil\u2066:100: [red]"
WITHOUT_BELL: Final = SAFE.replace(r"\x07", "")
TINY: Final = replace(PROVENANCE, provenance=f"Made for a test… {EVIL}.", first_event=0, events=1)

posix_alone = pytest.mark.skipif(sys.platform == "win32", reason="there is no such shell")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> GraphFile:
    card = replace(LATENT_CARD, min_charge=7, nature="demonstration", provenance=f"Of a test… {EVIL}.")
    return write_graph(tmp_path_factory.mktemp("output") / "tiny.onnx", latent_model(), card)


def run_at_once(commands: dict[str, str], folder: Path) -> dict[str, subprocess.CompletedProcess[bytes]]:
    """Run shell commands in parallel; PXDBG in them stands for the program."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    environment |= {"LANG": "C.UTF-8", "COLUMNS": "100", "TERM": "xterm"}
    pxdbg = f"{shlex.quote(sys.executable)} -c {shlex.quote(PXDBG)}"
    processes = {
        name: subprocess.Popen(
            ["bash", "-o", "pipefail", "-c", command.replace("PXDBG", pxdbg)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name, command in commands.items()
    }
    done = {}
    for name, process in processes.items():
        out, err = process.communicate(timeout=100)
        done[name] = subprocess.CompletedProcess(commands[name], process.returncode, out, err)
    return done


@posix_alone
@pytest.mark.slow
def test_nothing_that_is_printed_changes_the_exit_code(tmp_path: Path, graph: GraphFile) -> None:
    generate = f"PXDBG generate --model {graph.path} --seed 11 --events 3 --output"
    full = "/dev/full" if Path("/dev/full").exists() else "/dev/null"
    done = run_at_once(
        {
            "full": f"FORCE_COLOR=1 PYTHONIOENCODING=ascii {generate} full.npz > {full}",
            "closed": f"{generate} closed.parquet >&- 2>&-",
            "pipe": f"PXDBG models 2> {full} | :",
        },
        tmp_path,
    )
    for name, process in done.items():
        assert process.returncode == 0, (name, process.stderr)
        assert b"Traceback" not in process.stderr
        assert b"ignored" not in process.stderr  # what Python says of a failure while it ends
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed.parquet", "full.npz"]
    digits = read_digits(tmp_path / "full.npz").digits
    assert len(digits) > 100
    assert read_digits(tmp_path / "closed.parquet").digits == digits
    assert done["pipe"].stderr == b""
    log = done["full"].stderr.decode("ascii")
    assert len(log) < 1_500
    assert re.search(r"\nevents: 0/3\nevents: 3/3 in 0:00:\d\d, [\d.]+ events/s\n", log)
    if full == "/dev/full":
        assert log.endswith("\nThe standard output could not be written: No space left on device.\n")


@posix_alone
@pytest.mark.slow
def test_texts_of_files_and_arguments_do_not_steer_the_terminal(tmp_path: Path, graph: GraphFile) -> None:
    evil_graph = tmp_path / f"{EVIL.replace('/', '')}.onnx"
    evil_graph.write_bytes(graph.path.read_bytes())
    with open_writer(tmp_path / "empty.npz", TINY) as writer:
        writer.write(Digits.empty())
    option = shlex.quote(f"--{EVIL}")
    not_utf8 = "$'bg\\xe9.parquet'"
    done = run_at_once(
        {
            "show graph": f"FORCE_COLOR=1 PXDBG show {shlex.quote(str(evil_graph))}",
            "show digits": "FORCE_COLOR=1 PXDBG show empty.npz",
            "show in ascii": "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 PXDBG show empty.npz",
            "generate": f"FORCE_COLOR=1 PXDBG generate --model {shlex.quote(str(evil_graph))} --output {not_utf8}",
            "no such option": f"FORCE_COLOR=1 PXDBG {option}",
            "bad value": f"FORCE_COLOR=1 PXDBG generate --output x.npz --precision {shlex.quote(EVIL)}",
            "no such file": f"FORCE_COLOR=1 PXDBG show {shlex.quote(EVIL + '.npz')}",
        },
        tmp_path,
    )
    codes = {name: process.returncode for name, process in done.items()}
    assert codes == dict.fromkeys(done, 0) | {"no such option": 2, "bad value": 2, "no such file": 1}
    for name, process in done.items():
        printed = (process.stdout + process.stderr).decode()
        without_colours = re.sub(r"\x1b\[[\d;]*m", "", printed)
        assert without_colours == make_safe(without_colours), name
        assert "evil" in printed, name
        assert r"\u202e" in printed, name
        assert "\N{HUNDRED POINTS SYMBOL}" not in printed, name  # rich would make one of :100:
        assert " [red" in without_colours, name
    assert rb"bg\udce9.parquet" in done["generate"].stdout
    assert len(list(tmp_path.iterdir())) == 3
    assert done["show in ascii"].stdout.isascii()
    assert b"Made for a test? " in done["show in ascii"].stdout  # an ellipsis


def test_streams_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under pythonw, which has no console."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    stdout.print("into the void")
    stderr.print("into the void")
    assert not stderr.draws_bars


@posix_alone
def test_a_pipe_that_does_not_block_loses_what_nobody_reads_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python raises BlockingIOError there."""
    monkeypatch.setattr(output_streams, "_BUSY_READER_S", 0.05)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with os.fdopen(theirs, "w", encoding="utf-8") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "__stdout__", pipe)
        output_streams.protect_standard_streams()
        assert sys.stdout is not pipe
        stdout.print("x" * 200_000, soft_wrap=True)
        n_read = len(os.read(ours, 1_000_000))
        assert 1_000 < n_read < 200_000
        stdout.print("y", soft_wrap=True)
        assert os.read(ours, 100) == b"y\n"  # it goes on when somebody reads
        os.close(ours)
        stdout.print("nobody is there")
        assert list(output_streams.find_write_errors()) == []  # that is no fault


def test_safe_text() -> None:
    assert make_safe(EVIL) == SAFE
    assert make_safe("a\tb\nc … ü 漢字 \N{GRINNING FACE}") == "a\tb\nc … ü 漢字 \N{GRINNING FACE}"
    assert make_safe("\r\x00\x7f\x85\u2028\ufeff\udce9") == r"\r\x00\x7f\x85\u2028\ufeff\udce9"
    assert keep_colours("\x1b[1;31mred\x1b[0m\x1b[2J\x1b[1") == "\x1b[1;31mred\x1b[0m" + r"\x1b[2J\x1b[1"


def test_the_console_makes_every_text_safe(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", title=EVIL)
    table.add_row(EVIL)
    for printed in (EVIL, Text(EVIL), table):
        stdout.print(printed, width=200)
    lines = capsys.readouterr().out.splitlines()
    # rich itself drops the bell of a Text.
    assert lines[:3] == [SAFE, WITHOUT_BELL, *lines[2:3]]
    assert SAFE in lines[2]
    assert sum(SAFE in line for line in lines) == 3
    assert len({len(line) for line in lines[3:]}) == 1  # a column is as wide as what is printed


def test_logs_are_safe_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_terminal()
    logging.getLogger("pxdbg_runtime.test").warning("odd: %s", EVIL)
    err = capsys.readouterr().err
    assert " ".join(err.split()) == f"WARNING odd: {SAFE}"


def test_a_name_with_emoji_and_markup_is_printed_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a:100:b[bold].npz"
    with open_writer(path, TINY) as writer:
        writer.write(Digits.empty())
    result = invoke("plot", path, "--output", tmp_path / "c:100:[red].png")
    assert result.stdout.endswith("c:100:[red].png\n")
    failed = invoke("show", tmp_path / "gone:100:[red].npz")
    assert "gone:100:[red].npz cannot be read" in failed.stderr


def test_the_place_of_an_output_is_checked_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "device.npz").symlink_to(os.devnull)
    (tmp_path / "device.html").symlink_to(os.devnull)
    for arguments in (
        ("generate", "--model", "gone", "--output", tmp_path / "device.npz"),
        ("plot", tmp_path / "gone.npz", "--output", tmp_path / "device.npz"),
        ("validate", tmp_path / "gone.npz", "--report", tmp_path / "device.html"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 1
        assert "is a device: expected the name of a file to write" in " ".join(result.stderr.split())


def test_a_graph_is_not_written_over(latent_graph: GraphFile, tmp_path: Path) -> None:
    before = latent_graph.path.read_bytes()
    link = tmp_path / "link.npz"
    link.symlink_to(latent_graph.path)
    result = invoke("generate", "--model", str(latent_graph.path), "--output", str(link))
    assert result.exit_code == 2
    assert f"would write {link} over {latent_graph.path}, which is read" in result.stderr
    assert latent_graph.path.read_bytes() == before
