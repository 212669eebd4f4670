"""The command ``python -m export --from-conditions``."""

from __future__ import annotations

import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Final

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from export.__main__ import app, main
from export.conditions import command
from export.conditions.environment import CENTRAL_SERVER
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.checkpoints import FlatNet, flat_checkpoint, register_family
from tests.conditions_server import NAME, TAG, ConditionsServer, answer, answer_json, answer_status, files, serving
from tests.conditions_sqlite import FLAT, write_database, write_payload

EXACTLY_ONE: Final = r"Give a checkpoint file or --from-conditions GLOBALTAG: exactly one of the two\."
FOR_CONDITIONS: Final = r"--experiment, --run, --server, --cache and --allow-open-tag are for --from-conditions, .*"


def invoke(*arguments: str | Path) -> Result:
    options = ("--family", "resnet", "--from-conditions", TAG)
    return CliRunner().invoke(app, [str(argument) for argument in (*options, *arguments)])


@pytest.mark.slow
def test_one_command_turns_a_payload_into_a_graph(
    server: ConditionsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_family(monkeypatch, "resnet", FlatNet)
    content = flat_checkpoint(tmp_path).read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    server.steps["file"] = [answer(content)]
    server.steps["list"] = [answer_json([server.entry(checksum=md5, expStart=1003, expEnd=1003)])]
    cache, graphs = tmp_path / "cache", tmp_path / "graphs"
    with serving() as worse:
        worse.steps["tag"] = [answer_status(404)]
        result = invoke(
            *("--experiment", "1003", "--run", "5", "--server", worse.url, "--server", server.url),
            *("--cache", cache, "--output", graphs, "--provenance", "Of 2026."),
        )
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    lines = result.stdout.splitlines()
    path = cache / md5[:2] / f"{NAME}_r3.root"
    assert lines[0] == f"global tag {TAG} is PUBLISHED: {NAME} revision 3, MD5 {md5}"
    assert re.fullmatch(rf"downloaded http://\S+/rev_3\.root to {path}", lines[1])
    assert re.match(rf"read \S+/pxdbg-payload-\w+/{md5[:2]}/{NAME}_r3\.root: resnet, ", lines[2])
    card = read_graph_file(graphs / f"{NAME}_r3-float32.onnx").card
    assert card.provenance == (
        f"Of 2026. Payload {NAME} revision 3, MD5 {md5}, of the global tag {TAG} (PUBLISHED) for experiment 1003, "
        f"run 5; conditions database {server.url}."
    )
    assert card.checkpoint_sha256 == hashlib.sha256(content).hexdigest()
    assert card.nature == "checkpoint"


def test_an_sqlite_file_of_the_environment_needs_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "resnet", FlatNet)
    content = flat_checkpoint(tmp_path).read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    database = write_database(tmp_path / "data", {"checksum": md5}, state="OPEN")
    write_payload(tmp_path / "files", content, FLAT)
    monkeypatch.setenv("BELLE2_CONDB_METADATA", f"/none/database.sqlite {database}")
    monkeypatch.setenv("BELLE2_CONDB_PAYLOADS", str(tmp_path / "files"))
    monkeypatch.setenv("BELLE2_CONDB_PROXY", "http://127.0.0.1:9")
    output = ("--output", tmp_path / "graphs", "--cache", tmp_path / "cache")
    refused = invoke(*output)
    assert refused.exit_code == 1
    assert f"The global tag {TAG} is OPEN: " in refused.stderr
    result = invoke(*output, "--allow-open-tag")
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    assert f"found on this machine: {tmp_path / 'files' / FLAT}\n" in result.stdout
    card = read_graph_file(tmp_path / "graphs" / f"{NAME}_r3-float32.onnx").card
    assert f"(OPEN) for experiment 0, run 0; conditions database {database}." in str(card.provenance)
    assert not (tmp_path / "cache").exists()


class Terminal(Console):
    draws_bars = True


def test_a_terminal_shows_a_bar_that_goes_away(
    server: ConditionsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(
        command, "stderr", Terminal(file=terminal, force_terminal=True, width=100, legacy_windows=False)
    )
    told: list[str] = []
    command.fetch_checkpoint(
        *(TAG, "resnet"),
        sources=(server.url,),
        cache=tmp_path,
        experiment=0,
        run=0,
        allow_open_tag=False,
        log=told.append,
    )
    assert len(told) == 2
    assert "downloading" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the line is erased
    assert not any(line in terminal.getvalue() for line in told)


def test_a_payload_that_is_no_checkpoint_is_one_sentence(server: ConditionsServer, tmp_path: Path) -> None:
    result = invoke("--server", server.url, "--cache", tmp_path / "cache", "--output", tmp_path / "graphs")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: The checkpoint \S+_r3\.root is not a checkpoint: expected a file .*\n", result.stderr)
    assert not (tmp_path / "graphs").exists()


def test_a_failing_server_is_one_sentence_and_exit_code_1(server: ConditionsServer, tmp_path: Path) -> None:
    server.steps["tag"] = [answer_status(404)]
    result = invoke("--server", server.url, "--cache", tmp_path / "cache", "--output", tmp_path / "graphs")
    start = f"Error: No source of the conditions database gave {NAME} of the global tag {TAG}: "
    assert (result.exit_code, result.stdout) == (1, "")
    # The newer interface has no request that tells a server that lacks the tag from another address.
    other = (
        f", or is not the base URL of a conditions server, such as {CENTRAL_SERVER}" if server.interface == "v2" else ""
    )
    assert result.stderr == (
        f"{start}{server.url} does not know the global tag {TAG} (404 Not Found){other}.\n"
        "See docs/conditions.md#sources\n"
    )
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), EXACTLY_ONE),
        (("a.pt", "--from-conditions", TAG), EXACTLY_ONE),
        *(
            (
                ("a.pt", *option),
                "--experiment, --run, --server, --cache and --allow-open-tag are for --from-conditions, not .*",
            )
            for option in (
                ("--experiment", "0"),
                ("--run", "3"),
                ("--server", "http://a"),
                ("--cache", "c"),
                ("--allow-open-tag",),
            )
        ),
        (
            ("--from-conditions", TAG, "--server", "ftp://a"),
            r"--server must be an http or https URL .*, but is 'ftp://a'\.",
        ),
        (("--from-conditions", "../a", "--server", "http://a"), r"The global tag may hold only .*, but is '\.\./a'\."),
        (("--from-conditions", TAG, "--server", "http://a", "--run", "-1"), r"--run must be 0 or more, but is -1\."),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = CliRunner().invoke(app, [*arguments, "--family", "resnet", "--output", str(tmp_path / "graphs")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(f"Error: {expected}\n", result.stderr)
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "exit_code", "expected"),
    [
        (("--precision", "int8", "--target", "cuda"), 2, r"int8 graphs consist of operators .*: use --target cpu\."),
        (("--name", "a/b"), 2, r"--name must start with .*, but is 'a/b'\."),
        (("--output", "file/graphs"), 1, r"The folder file\S+ cannot be made: .*\."),
    ],
)
def test_options_and_output_are_checked_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], exit_code: int, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    source = ("--from-conditions", TAG, "--server", "gone.sqlite", "--family", "resnet", "--output", "graphs")
    result = CliRunner().invoke(app, [*source, *arguments])
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert re.fullmatch(f"Error: {expected}\n", result.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_httpx_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    result = invoke("--output", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: --from-conditions needs httpx, which is not installed: pip install 'pxdbg-runtime[export]'.\n"
    )


def test_the_word_payload_leads_to_the_other_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["payload", "--help"])
    assert "Usage: python -m export payload" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "[OPTIONS] [" in said
    assert "python -m export payload DIR" in said
