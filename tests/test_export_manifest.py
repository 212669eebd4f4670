"""The manifest lists the graphs of a folder as they are, and is not touched if one of them is not whole."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from msgspec import structs

from export.manifest import main, write_manifest
from export.pipeline import ExportOptions, export_checkpoint
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError, OutputError
from pxdbg_runtime.model.builtin_models import read_manifest
from tests.checkpoints import FlatNet, flat_checkpoint, register_family, use_known_flat_graph
from tests.digit_files import names_in


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with two graphs, and another file that does not count."""
    folder = tmp_path_factory.mktemp("original")
    graphs = folder / "graphs"
    with pytest.MonkeyPatch.context() as patched:
        register_family(patched, "flat", FlatNet)
        for seed, name in enumerate(("zebra", "aardvark")):
            use_known_flat_graph(patched, seed)
            export_checkpoint(flat_checkpoint(folder, seed), "flat", graphs, ExportOptions(name=name))
    (graphs / "notes.txt").write_text("no graph")
    return graphs


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Copy that folder, for a test to write in."""
    return Path(shutil.copytree(original, tmp_path / "graphs"))


@pytest.mark.slow
def test_manifest_lists_size_and_digest_of_every_graph(folder: Path) -> None:
    listed = write_manifest(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert [graph["name"] for graph in manifest["graphs"]] == ["aardvark", "zebra"]
    for graph in manifest["graphs"]:
        content = (folder / graph["file"]).read_bytes()
        assert graph["file"] == f"{graph['name']}-float32.onnx"
        assert graph["precision"] == "float32"
        assert graph["size"] == len(content)
        assert graph["sha256"] == hashlib.sha256(content).hexdigest()
    assert read_manifest(folder) == listed


def test_manifest_is_written_anew(folder: Path) -> None:
    write_manifest(folder)
    first = (folder / "manifest.json").read_bytes()
    write_manifest(folder)
    assert (folder / "manifest.json").read_bytes() == first
    (folder / "zebra-float32.onnx").unlink()
    assert [graph.name for graph in write_manifest(folder)] == ["aardvark"]
    assert "zebra" not in (folder / "manifest.json").read_text()
    assert names_in(folder) == ["aardvark-float32.onnx", "manifest.json", "notes.txt"]


@pytest.mark.parametrize("place", [100, -10, -200], ids=["weights", "digest", "card"])
def test_a_damaged_graph_is_refused_and_the_manifest_kept(folder: Path, place: int) -> None:
    write_manifest(folder)
    older = (folder / "manifest.json").read_bytes()
    damaged = folder / "zebra-float32.onnx"
    content = bytearray(damaged.read_bytes())
    content[place] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(GraphFileError, match=r"zebra-float32\.onnx is damaged") as caught:
        write_manifest(folder)
    assert caught.value.path == damaged
    assert (folder / "manifest.json").read_bytes() == older
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_two_graphs_of_one_name_are_refused(folder: Path) -> None:
    shutil.copy(folder / "zebra-float32.onnx", folder / "other.onnx")
    expected = (
        r"holds two graphs zebra in float32 for cpu, other\.onnx and zebra-float32\.onnx: expected one; move the other"
    )
    with pytest.raises(ArgumentValueError, match=expected):
        write_manifest(folder)
    assert not (folder / "manifest.json").exists()


def test_a_file_that_is_no_graph_is_refused(folder: Path) -> None:
    (folder / "middle.onnx").write_text("not a graph")
    with pytest.raises(GraphFileError, match=r"middle\.onnx is not an ONNX file"):
        write_manifest(folder)
    assert not (folder / "manifest.json").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"gone/manifest\.json cannot be written: the folder .*gone does not exist"):
        write_manifest(tmp_path / "gone")


def test_a_folder_without_a_graph_is_refused_and_the_manifest_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text("of graphs that were moved")
    with pytest.raises(typer.Exit) as ended:  # its text is empty: the sentence is on the standard error
        main(tmp_path)
    expected = f"Error: {tmp_path} holds no graph (*.onnx): expected a folder that python -m export has written to.\n"
    assert (ended.value.exit_code, capsys.readouterr().err) == (2, expected)
    assert (tmp_path / "manifest.json").read_text() == "of graphs that were moved"


def test_command_prints_a_line_for_each_graph_without_control_characters(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(folder)
    for line, name in zip(capsys.readouterr().out.splitlines(), ("aardvark", "zebra"), strict=True):
        assert re.fullmatch(rf"{name} float32: {name}-float32\.onnx, \d+ bytes", line)
    listed = [structs.replace(each, file=f"\x07{each.file}") for each in write_manifest(folder)]
    monkeypatch.setattr("export.manifest.write_manifest", lambda _folder: listed)
    main(folder)
    printed = capsys.readouterr().out
    assert "\x07" not in printed
    assert "aardvark-float32.onnx" in printed


def test_a_damaged_graph_ends_the_command_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    command = [sys.executable, "-m", "export.manifest", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"Error: \S+graph\.onnx is not an ONNX file[^\n]*\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_a_folder_whose_name_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentValueError, match=r"^The folder \S+ cannot be read: .*\.$"):
        write_manifest(tmp_path / ("a" * 300))
