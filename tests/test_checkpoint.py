"""Checkpoints: every sound one loads to the same weights, and every other is refused in one sentence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
import torch
from torch import Tensor, nn

from export.checkpoint import load_checkpoint
from export.errors import CheckpointError
from export.families import load_family
from tests.checkpoints import FAMILY_NAMES, SmallNet, light_state, random_model, register_family, save, save_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.families.generator_module import GeneratorModule

State = dict[str, Tensor]

WEIGHT: Final = "blocks.2.conv1.weight"
SMALL_WEIGHT: Final = "conv.weight"
SMALL_VARIANCE: Final = "norm.running_var"


@pytest.fixture(scope="module")
def model() -> GeneratorModule:
    return random_model("resnet", seed=21)


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> GeneratorModule:
    register_family(monkeypatch, "small", SmallNet)
    return random_model("small", seed=22)


def require_weights_of(expected: GeneratorModule, found: GeneratorModule) -> None:
    assert not found.training
    for (key, value), (found_key, found_value) in zip(
        expected.state_dict().items(), found.state_dict().items(), strict=True
    ):
        assert key == found_key
        assert torch.equal(value, found_value), key


# What is accepted


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_sound_files_load(model: GeneratorModule, tmp_path: Path, kind: str) -> None:
    state, path = model.state_dict(), tmp_path / "generator"
    if kind == "safetensors":
        save_safetensors(state, path)
    else:
        save(state, path, legacy=kind == "legacy")
    require_weights_of(model, load_checkpoint(path, "resnet"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floating_point_types_become_float32(
    small_model: GeneratorModule, tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {
        key: value.to(dtype) if value.is_floating_point() else value for key, value in small_model.state_dict().items()
    }
    loaded = load_checkpoint(save(state, tmp_path / "generator.pt"), "small")
    for key, value in loaded.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert value.dtype == torch.float32
            assert torch.equal(value, state[key].float()), key


@pytest.mark.parametrize("counter", [None, 81_250])
def test_training_counters_do_not_matter(small_model: GeneratorModule, tmp_path: Path, counter: int | None) -> None:
    state = dict(small_model.state_dict())
    for key in [key for key in state if key.endswith("num_batches_tracked")]:
        del state[key]
        if counter is not None:
            state[key] = torch.tensor(counter)
    require_weights_of(small_model, load_checkpoint(save(state, tmp_path / "generator.pt"), "small"))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_parameters_and_expanded_weights_load(family: str, tmp_path: Path) -> None:
    path = save({key: nn.Parameter(value, False) for key, value in light_state(family).items()}, tmp_path / "a.pt")
    loaded = load_checkpoint(path, family)
    assert isinstance(loaded, load_family(family).module_class)
    assert all(bool((parameter == 0.25).all()) for parameter in loaded.parameters())


# What is refused: the keys


@pytest.mark.parametrize(
    ("dropped", "added", "expected"),
    [
        ((WEIGHT,), (), rf"is not of the family resnet: it lacks {WEIGHT}\.$"),
        ((), ("blocks.5.conv.weight",), r"it holds blocks\.5\.conv\.weight, which is unknown\.$"),
        (("fc.weight",), ("fc.wieght", "extra"), r"lacks fc\.weight and holds extra, fc\.wieght, which are unknown\.$"),
        ((WEIGHT,), (f"module.{WEIGHT}",), rf"lacks {WEIGHT} and holds module\.{WEIGHT}, which is unknown"),
        (
            ("blocks",),
            (),
            (
                r"it lacks blocks\.0\.conv\.bias, blocks\.0\.conv\.weight, blocks\.0\.conv1\.bias, "
                r"blocks\.0\.conv1\.weight and 66 more\.$"
            ),
        ),
    ],
    ids=["missing", "unexpected", "both", "prefix", "many"],
)
def test_missing_and_unexpected_keys_are_named(
    tmp_path: Path, dropped: tuple[str, ...], added: tuple[str, ...], expected: str
) -> None:
    state = {key: value for key, value in light_state("resnet").items() if not key.startswith(dropped)}
    state |= {key: torch.zeros(2) for key in added}
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")
    assert caught.value.path == tmp_path / "generator.pt"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("family", "other"), [("convnet", "resnet"), ("resnet", "convnet")])
def test_the_checkpoint_of_the_other_model_is_recognised(tmp_path: Path, family: str, other: str) -> None:
    path = save(light_state(other), tmp_path / "generator.pt")
    expected = rf"is of the family {other}, not {family}: pass --family {other}\.$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, family)


# What is refused: the values


def put(number: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    def change(value: Tensor) -> Tensor:
        value = value.to(dtype).clone()
        value.view(-1)[-1] = number
        return value

    return change


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        (SMALL_WEIGHT, lambda value: value[:-1], r"KEY of shape \(2, 2, 3, 3\): expected \(3, 2, 3, 3\)\.$"),
        (SMALL_WEIGHT, lambda value: value.transpose(0, 1), r"KEY of shape \(2, 3, 3, 3\): expected \(3, 2, 3, 3\)\.$"),
        (SMALL_WEIGHT, put(float("nan")), "nan in KEY: every value must be finite"),
        (SMALL_WEIGHT, put(float("inf")), "inf in KEY: every value must be finite"),
        (SMALL_VARIANCE, put(float("-inf")), "-inf in KEY: every value must be finite"),
        (SMALL_WEIGHT, put(1e39, torch.float64), r"1e\+39 in KEY: every value must be finite in float32"),
        (SMALL_VARIANCE, put(-0.5), r"a negative running variance, -0\.5, in KEY\.$"),
        (SMALL_WEIGHT, Tensor.int, "KEY as int32: expected dense float32, float16"),
        (SMALL_WEIGHT, Tensor.bool, "KEY as bool: expected dense float32"),
        ("fc.weight", lambda value: value.to(torch.complex64), "KEY as complex64: expected dense float32"),
        (SMALL_WEIGHT, Tensor.to_sparse, r"KEY as float32 \(torch\.sparse_coo\): expected dense"),
        (SMALL_WEIGHT, lambda value: value.to("meta"), r"KEY without its values \(a meta tensor\)\.$"),
    ],
)
@pytest.mark.usefixtures("small_model")
def test_a_weight_that_is_not_sound_is_named(
    tmp_path: Path, key: str, change: Callable[[Tensor], Tensor], expected: str
) -> None:
    state = light_state("small")
    state[key] = change(state[key])
    with pytest.raises(CheckpointError, match=f"holds {expected}".replace("KEY", re.escape(key))):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "small")
