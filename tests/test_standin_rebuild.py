from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import artifacts.standins
from artifacts.standins.__main__ import app
from artifacts.standins.rebuild import compute_digest, rebuild_checkpoint
from export.checkpoint import load_checkpoint
from export.checkpoint.nature_mark import read_mark
from export.errors import CheckpointError
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(artifacts.standins.__file__).parent
Tensors = dict[str, torch.Tensor]
Metadata = dict[str, str]
MEANS = "measured.blocks.1.conv1.means"
FACTORS = "measured.features.4.factors"


def read_file(path: Path) -> tuple[Metadata, Tensors]:
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return file.metadata(), {name: file.get_tensor(name) for name in names}


@pytest.mark.parametrize("family", sorted({graph.name for graph in read_manifest()}))
def test_rebuild_writes_the_checkpoint_of_the_shipped_graphs(family: str, tmp_path: Path) -> None:
    source, path = FOLDER / f"{family}.safetensors", tmp_path / "checkpoint.safetensors"
    result = CliRunner().invoke(app, ["rebuild", str(source), "--output", str(path), "--unmarked"])
    assert result.exit_code == 0, result.output
    assert read_mark(path) is None
    assert source.stat().st_size < 1_500_000
    model = load_checkpoint(path, family)
    assert compute_digest(dict(model.state_dict())) == read_file(source)[0]["checkpoint"]
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    cards = [find_graph(graph.name, graph.precision).card for graph in read_manifest() if graph.name == family]
    assert {card.precision for card in cards} == {"float32", "int8"}
    for card in cards:
        assert card.checkpoint_sha256 == expected
        assert (card.family, card.nature, card.min_charge) == (family, "stand-in", 7)
        assert "not the collaboration's" in card.provenance


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _, tensors: tensors["late.conv.bias"].add_(1.0), "gives another state dict"),
        (lambda _, tensors: tensors.update({"late.another": torch.zeros(1)}), "gives another state dict"),
        (lambda _, tensors: tensors.pop("late.conv.weight"), "gives another state dict"),
        (lambda metadata, _: metadata.update(seed="2027"), "gives another state dict"),
        (lambda _, tensors: tensors.pop(MEANS), rf"has no tensor {re.escape(MEANS)} of shape \(120,\)"),
        (lambda _, tensors: tensors.update(level=tensors["level"][:-1]), r"has no tensor level of shape \(19,\)"),
        (
            lambda metadata, _: metadata.update(family="convnet"),
            rf"has no tensor {re.escape(FACTORS)} of shape \(120, 94\)",
        ),
        (
            lambda metadata, _: metadata.update(family="ieagan"),
            r"has no tensor blocks\.1\.0\.conv2 of shape \(120, 62\)",
        ),
        (
            lambda _, tensors: tensors.update({MEANS: tensors[MEANS].long()}),
            rf"its tensor {re.escape(MEANS)} is torch\.int64, expected torch\.float32",
        ),
        (
            lambda _, tensors: tensors.update({"late.norm.bias": tensors["late.norm.bias"].bfloat16()}),
            r"its tensor late\.norm\.bias is torch\.bfloat16, expected torch\.float32",
        ),
        (
            lambda _, tensors: tensors.update(level=tensors["level"].int()),
            r"its tensor level is torch\.int32, expected torch\.float64",
        ),
        (lambda metadata, _: metadata.update(family="vae"), "names no family, or no seed of 1 to 20 digits"),
        (lambda metadata, _: metadata.clear(), "names no family, or no seed of 1 to 20 digits"),
        (lambda metadata, _: metadata.update(seed="²"), "names no family, or no seed of 1 to 20 digits"),
        (lambda metadata, _: metadata.update(seed=5000 * "1"), "names no family, or no seed of 1 to 20 digits"),
    ],
    ids=[
        "bias",
        "more",
        "less",
        "seed",
        "means",
        "level",
        "family",
        "conditional family",
        "integers",
        "short numbers",
        "integers of the level",
        "unknown family",
        "no metadata",
        "superscript",
        "long seed",
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    damage: Callable[[Metadata, Tensors], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.safetensors"
    metadata, tensors = read_file(FOLDER / "resnet.safetensors")
    damage(metadata, tensors)
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=message):
        rebuild_checkpoint(path)


@pytest.mark.parametrize(
    "roles", [torch.full((32,), 100, dtype=torch.int8), torch.full((32,), -1, dtype=torch.int8), torch.zeros(32)]
)
def test_roles_that_do_not_exist_are_refused(roles: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"
    metadata, tensors = read_file(FOLDER / "ieagan.safetensors")
    safetensors.torch.save_file(tensors | {"roles": roles}, path, metadata)
    with pytest.raises(CheckpointError, match="its roles are not int8 from 0 to 31"):
        rebuild_checkpoint(path)


def test_a_file_is_replaced_on_request_alone_and_never_the_stand_in(tmp_path: Path) -> None:
    source, output = tmp_path / "standin.safetensors", tmp_path / "checkpoint.safetensors"
    content = (FOLDER / "ieagan.safetensors").read_bytes()
    source.write_bytes(content)
    output.write_bytes(b"hours of work")
    refused = CliRunner().invoke(app, ["rebuild", str(source), "--output", str(output)])
    assert refused.exit_code == 1
    assert f"{output} exists: name another file to write, or replace it with --overwrite." in refused.output
    assert output.read_bytes() == b"hours of work"
    link = tmp_path / "link.safetensors"
    link.symlink_to(source)
    for path in (source, link):
        refused = CliRunner().invoke(app, ["rebuild", str(source), "--output", str(path), "--overwrite"])
        assert refused.exit_code == 2
        assert "which is read: name another file to write" in refused.output
        assert source.read_bytes() == content
    result = CliRunner().invoke(app, ["rebuild", str(source), "--output", str(output), "--overwrite"])
    assert result.exit_code == 0, result.output
    assert read_mark(output) == "stand-in"
    assert compute_digest(safetensors.torch.load_file(output)) == read_file(source)[0]["checkpoint"]


@pytest.mark.parametrize("content", [b"", b"no safetensors", (FOLDER / "resnet.safetensors").read_bytes()[:-1]])
def test_a_foreign_file_is_refused_and_nothing_is_written(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["rebuild", str(path), "--output", str(tmp_path / "checkpoint.safetensors")])
    assert result.exit_code == 1
    assert not (tmp_path / "checkpoint.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors cannot be read"):
        rebuild_checkpoint(path)
