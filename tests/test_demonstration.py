"""Demonstration weights: repeatable, sparse, and with the wanted occupancy and charge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
import typer

from export import random_weights
from export.charge import compute_charges
from export.checkpoint import load_checkpoint
from export.checkpoint.nature_mark import read_mark
from export.demonstration import main
from export.families.resnet import ResNet
from export.random_weights import HitStatistics, build_random_model
from pxdbg_runtime.errors import ArgumentValueError
from tests.checkpoints import BUSY, FAMILY_NAMES, export_first, register_family
from tests.tiny_ieagan import TINY_VARIANTS, describe_variant
from tests.tiny_models import TinyConvNet, TinyResNet

if TYPE_CHECKING:
    from pathlib import Path

    from export.families import Family
    from export.families.generator_module import GeneratorModule


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the batch-norm statistics on few images."""
    monkeypatch.setattr(random_weights, "_STATISTICS_BATCHES", 1)
    monkeypatch.setattr(random_weights, "_BATCH_SIZE", 1)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", [TinyConvNet, TinyResNet])
def test_the_seed_decides_the_weights(kind: type[GeneratorModule], monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "tiny", kind)
    first, again, other = (build_random_model("tiny", seed, BUSY).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    different = [key for key in first if not torch.equal(first[key], other[key])]
    assert set(different) == {key for key in first if not key.endswith("num_batches_tracked")}


@pytest.mark.parametrize("seed", [10**25, 2**63, -(2**63) - 1])
def test_a_seed_of_more_than_64_bits_is_one_sentence(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = f"seed must lie in [-2^63, 2^63 - 1], but is {seed}."
    with pytest.raises(typer.Exit) as ended:
        main(family="resnet", output=tmp_path / "resnet.safetensors", seed=seed)
    assert (ended.value.exit_code, capsys.readouterr().err) == (2, f"Error: {expected}\n")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ArgumentValueError, match=re.escape(expected)):
        build_random_model("resnet", seed)


def test_an_offset_needs_a_bias() -> None:
    model = TinyConvNet()
    model.last = torch.nn.Conv2d(TinyConvNet.channels[-1], 1, kernel_size=5, padding=2, bias=False)
    before = model.last.weight.clone()
    with pytest.raises(ValueError, match=r"^the last convolution of TinyConvNet has no bias: no offset can be added$"):
        model.scale_output(2.0, 0.5)
    assert torch.equal(model.last.weight, before)
    model.scale_output(2.0, 0.0)
    assert torch.equal(model.last.weight, 2 * before)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)
def test_the_seed_decides_the_weights_of_a_variant_and_the_vectors_of_its_norms(family: Family) -> None:
    torch.manual_seed(1)
    first = build_random_model(family, 7).state_dict()
    torch.manual_seed(2)
    again, other = (build_random_model(family, seed).state_dict() for seed in (7, 8))
    assert all(torch.equal(first[key], again[key]) for key in first)
    different = {key for key in first if not torch.equal(first[key], other[key])}
    assert different >= {key for key in first if key.endswith(("u0", "stored_var", "conv1.weight", "shared.weight"))}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_images_look_as_asked_for_on_fresh_latents(family: str) -> None:
    model = export_first(family).model
    generator = torch.Generator().manual_seed(2026)
    with torch.inference_mode():
        charges = torch.cat([compute_charges(model(torch.randn(4, 96, generator=generator))) for _ in range(2)])
    hits = charges[charges > 0].double()
    assert charges.shape == (8, 250, 768)
    assert len(hits) / charges.numel() == pytest.approx(BUSY.occupancy, rel=0.35)
    assert hits.mean().item() == pytest.approx(BUSY.mean_charge, rel=0.35)
    assert len({image.numpy().tobytes() for image in charges}) == 8, "images must depend on the latent"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_model_is_ready_for_inference_and_its_filters_but_the_last_are_sparse(family: str) -> None:
    model = export_first(family).model
    assert not model.training
    filters = [weight for weight in model.state_dict().values() if weight.dim() == 4]
    n_terms = [(weight != 0).sum().item() / len(weight) for weight in filters]
    assert all(0 < n <= 16 for n in n_terms[:-1])
    assert n_terms[-1] > filters[-1].numel() / 2, "of a few weights alone, all might be negative"


def test_targets_are_those_of_the_real_sample_unless_told() -> None:
    assert HitStatistics() == HitStatistics(occupancy=0.0090, mean_charge=22.0)


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_command_writes_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "resnet.safetensors"
    main(family="resnet", output=path, seed=9)
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert [each.name for each in tmp_path.iterdir()] == ["resnet.safetensors"]
    expected = build_random_model("resnet", 9).state_dict()
    written = safetensors.torch.load_file(path)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], value) for key, value in expected.items())
    assert isinstance(load_checkpoint(path, "resnet"), ResNet)
    assert read_mark(path) == "demonstration"


@pytest.mark.usefixtures("quick")
def test_command_replaces_a_file_on_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register_family(monkeypatch, "tiny", TinyConvNet)
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(b"hours of training")
    with pytest.raises(typer.Exit) as ended:  # its text is empty: the sentence is on the standard error
        main(family="tiny", output=path)
    expected = f"Error: {path} exists: name another file to write, or replace it with --overwrite.\n"
    assert (ended.value.exit_code, capsys.readouterr().err) == (1, expected)
    assert path.read_bytes() == b"hours of training"
    main(family="tiny", output=path, overwrite=True)
    assert read_mark(path) == "demonstration"


@pytest.mark.usefixtures("quick")
def test_command_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:  # its text is empty: the sentence is on the standard error
        main(family="resnet", output=tmp_path / "gone" / "resnet.safetensors")
    assert ended.value.exit_code == 1
    assert "gone/resnet.safetensors cannot be written: the folder " in capsys.readouterr().err
