from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from artifacts.standins.__main__ import app
from artifacts.standins.equalising import Factors, equalise
from artifacts.standins.foundation import lay_foundation
from artifacts.standins.level import LEVEL_KNOTS, Level
from artifacts.standins.resnet_foundation import SUMS
from artifacts.standins.standin_file import StandIn, checkpoint, digest, read_standin, write_standin
from export.checkpoint import load_checkpoint
from export.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from artifacts.standins.gated_sums import GatedSums

LEVEL = Level.through(np.linspace(-1, 1, len(LEVEL_KNOTS)), step=0.3)


def factors_of(sums: GatedSums, generator: torch.Generator) -> Factors:
    n_sums = sum(len(rows) for rows in sums.rows)
    return {
        f"{sums.convolution}.factors": torch.randn(n_sums, len(sums.inputs[0]), generator=generator),
        f"{sums.convolution}.means": torch.randn(n_sums, generator=generator),
    }


@pytest.fixture(scope="module")
def standin() -> StandIn:
    generator = torch.Generator().manual_seed(1)
    factors = {name: value for sums in SUMS for name, value in factors_of(sums, generator).items()}
    model = lay_foundation("resnet", 3, LEVEL)
    with torch.no_grad():
        for name in ("blocks.3.conv1.weight", "conv.bias", "norm.running_var"):
            values = model.state_dict()[name]
            values.copy_(torch.rand(values.shape, generator=generator))
    return StandIn.of(model, 3, LEVEL, factors)


def test_a_file_makes_the_checkpoint_that_was_written(standin: StandIn, tmp_path: Path) -> None:
    write_standin(standin, tmp_path / "small.safetensors")
    again = read_standin(tmp_path / "small.safetensors")
    assert (again.family, again.seed, again.level) == ("resnet", 3, LEVEL)
    expected = lay_foundation("resnet", 3, LEVEL)
    equalise(expected, standin.factors)
    state = {**expected.state_dict(), **standin.late}
    assert digest(checkpoint(again)) == digest(state)
    assert (tmp_path / "small.safetensors").stat().st_size < 1_500_000


def test_rebuild_writes_a_checkpoint_of_the_model(standin: StandIn, tmp_path: Path) -> None:
    write_standin(standin, tmp_path / "small.safetensors")
    result = CliRunner().invoke(
        app, ["rebuild", str(tmp_path / "small.safetensors"), "--output", str(tmp_path / "whole.safetensors")]
    )
    assert result.exit_code == 0, result.output
    model = load_checkpoint(tmp_path / "whole.safetensors", "resnet")
    assert digest(dict(model.state_dict())) == digest(checkpoint(standin))


def test_a_changed_file_is_refused(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    write_standin(standin, path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["late.conv.bias"] += 1.0
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="makes another checkpoint here"):
        read_standin(path)


@pytest.mark.parametrize("content", [b"", b"no safetensors"])
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    path.write_bytes(content)
    result = CliRunner().invoke(app, ["rebuild", str(path), "--output", str(tmp_path / "whole.safetensors")])
    assert result.exit_code != 0
    assert not (tmp_path / "whole.safetensors").exists()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_standin(path)


def test_a_checkpoint_is_no_standin(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    safetensors.torch.save_file({"conv.bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="is no stand-in"):
        read_standin(path)
