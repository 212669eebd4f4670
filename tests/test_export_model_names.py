"""Names of models: a given name is checked, and a valid one is derived from a file's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from export.__main__ import app
from export.model_names import check_name, derive_name
from export.pipeline import ExportOptions, export_checkpoint
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.model.graph_file import read_graph_file
from tests.checkpoints import FlatNet, flat_checkpoint, register_family, use_known_flat_graph
from tests.digit_files import names_in


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register_family(monkeypatch, "flat", FlatNet)
    use_known_flat_graph(monkeypatch)
    return flat_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("resnet-2026.pt", "resnet-2026"),
        ("epoch=12-step=3400.ckpt", "epoch-12-step-3400"),
        ("générateur v2 (final).pth", "generateur-v2-final"),
        (".hidden_G.pt", "hidden_G"),
        ("a" * 240 + ".pt", "a" * 100),
        ("[bold].pt", "bold"),
        ("生成器.pt", "resnet"),
        ("===.pt", "resnet"),
    ],
)
def test_the_name_of_a_file_gives_a_valid_one(file: str, name: str) -> None:
    assert derive_name(Path("runs") / file, "resnet") == check_name(name)


@pytest.mark.parametrize("name", ["epoch=12", "a b", "a/b", "", "-a", "_v2", "é"])
def test_a_given_name_is_checked(name: str) -> None:
    expected = (
        r"^--name must start with a letter or digit and hold only ASCII letters, digits, '\.', '_' and '-', but is '"
    )
    with pytest.raises(ArgumentValueError, match=expected):
        check_name(name)


def test_a_file_that_lightning_named_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "resnet", FlatNet)
    use_known_flat_graph(monkeypatch)
    checkpoint = flat_checkpoint(tmp_path).rename(tmp_path / "epoch=12-step=3400.ckpt")
    done = CliRunner().invoke(app, [str(checkpoint), "--family", "resnet", "--output", str(tmp_path / "graphs")])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "named the model epoch-12-step-3400, after its file; --name gives it another name\n" in done.stdout
    assert read_graph_file(tmp_path / "graphs" / "epoch-12-step-3400-float32.onnx").card.name == "epoch-12-step-3400"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "with space", "-dash", "new\n", "umläut", "nul\0"])
def test_a_name_that_is_no_file_name_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArgumentValueError, match="--name must start with a letter or digit") as caught:
        export_checkpoint(checkpoint, "flat", tmp_path / "graphs", ExportOptions(name=name))
    assert caught.value.argument == "name"
    assert not (tmp_path / "graphs").exists()


def test_the_name_of_a_file_that_is_none_of_a_model_is_changed_and_said(checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    renamed = checkpoint.rename(tmp_path / "my generator.pt")
    graph = export_checkpoint(renamed, "flat", tmp_path / "graphs", log=lines.append)
    assert graph.card.name == "my-generator"
    assert lines[0] == "named the model my-generator, after its file; --name gives it another name"


def test_the_longest_name_of_a_file_is_written(checkpoint: Path, tmp_path: Path) -> None:
    name = "n" * (255 - len("-float32.onnx"))
    graph = export_checkpoint(checkpoint, "flat", tmp_path / "graphs", ExportOptions(name=name))
    assert names_in(tmp_path / "graphs") == [graph.path.name]
    assert len(graph.path.name) == 255
