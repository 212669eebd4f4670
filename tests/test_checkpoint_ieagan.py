"""Checkpoints of a family with variants: found by their keys in any container, and refused with the key's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest
import torch
from torch import Tensor, nn

from export.checkpoint import load_checkpoint
from export.errors import CheckpointError
from export.families.ieagan import FAMILY
from tests.checkpoints import random_model, register_family, save, save_safetensors
from tests.tiny_ieagan import TINY, TINY_VARIANTS, describe_variant

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.families import Family

State = dict[str, Tensor]

WEIGHT: Final = "blocks.3.0.conv2.weight"
VARIANCE: Final = "blocks.7.0.bn3.stored_var"
both_variants = pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)


@pytest.fixture(autouse=True)
def tiny_family(monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "tiny", TINY)


def state_of(family: Family, seed: int = 1) -> State:
    return dict(random_model(family.module_class, seed).state_dict())


def require_loaded(family: Family, expected: State, path: Path, state_key: str | None = None) -> None:
    loaded = load_checkpoint(path, "tiny", state_key=state_key)
    assert type(loaded) is family.module_class
    assert TINY.find_variant(loaded) is family
    assert not loaded.training
    found = loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def require_refused(content: object, folder: Path, expected: str) -> None:
    with pytest.raises(CheckpointError, match=expected) as caught:
        load_checkpoint(save(content, folder / "generator.pt"), "tiny")
    assert "\n" not in str(caught.value)


@both_variants
def test_a_raw_state_dict_is_that_of_its_variant(family: Family, tmp_path: Path) -> None:
    state = state_of(family)
    require_loaded(family, state, save(state, tmp_path / "generator.pt"))
    require_loaded(family, state, save_safetensors(state, tmp_path / "generator.safetensors"))


@both_variants
@pytest.mark.slow
def test_the_averaged_generator_is_chosen_beside_the_trained_one(family: Family, tmp_path: Path) -> None:
    trained, averaged = state_of(family, 1), state_of(family, 2)
    path = save({"G": trained, "g_ema": averaged, "itr": 81_250}, tmp_path / "generator.pt")
    require_loaded(family, averaged, path, state_key="g_ema")
    require_loaded(family, trained, path, state_key="G")
    with pytest.raises(CheckpointError, match=r"several state dicts, G and g_ema: choose with --state-key\.$"):
        load_checkpoint(path, "tiny")
    require_loaded(family, averaged, save({"g_ema": averaged}, tmp_path / "averaged.pt"))


@both_variants
@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.optim.swa_utils.AveragedModel,
        lambda model: nn.ModuleDict({"_orig_mod": model}),  # as torch.compile does
        lambda model: nn.ModuleDict({"_orig_mod": nn.DataParallel(model)}),
    ],
    ids=["module", "AveragedModel", "_orig_mod", "_orig_mod.module"],
)
def test_wrapped_generators_load(family: Family, tmp_path: Path, wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = random_model(family.module_class, 3)
    wrapped = wrap(model).state_dict()
    assert WEIGHT not in wrapped
    require_loaded(family, model.state_dict(), save(wrapped, tmp_path / "generator.pt"))


@both_variants
@pytest.mark.parametrize(
    "number",
    [None, torch.tensor(2.0), torch.tensor([2.0]), torch.tensor([torch.nan]), torch.tensor(3)],
    ids=["absent", "scalar", "vector", "nan", "integer"],
)
def test_the_logged_norm_has_no_effect(family: Family, tmp_path: Path, number: Tensor | None) -> None:
    state = state_of(family)
    weights = {key: value for key, value in state.items() if not key.endswith("sv0")}
    logged = {key: number for key in state.keys() - weights.keys() if number is not None}
    expected = weights | {key: torch.ones(1) for key in state.keys() - weights.keys()}
    require_loaded(family, expected, save(weights | logged, tmp_path / "generator.pt"))


@pytest.mark.parametrize(
    ("variant", "key"),
    [(0, WEIGHT), (1, "blocks.0.0.bn1.gain.u0"), (0, "linear.bias"), (1, "RR_G.norm.bias"), (0, "shared.weight")],
)
def test_a_missing_key_is_named(tmp_path: Path, variant: int, key: str) -> None:
    state = state_of(TINY_VARIANTS[variant])
    del state[key]
    require_refused(state, tmp_path, rf"is not of the family tiny: it lacks {re.escape(key)}\.$")


@pytest.mark.parametrize(
    ("kept", "lacks"),
    [
        ("weight", r"lacks linear_f\.bias, linear_f\.u0\.$"),
        (("weight", "bias"), r"lacks linear_f\.u0\.$"),
    ],
)
def test_a_part_of_the_layer_of_the_event_noise_is_refused(
    tmp_path: Path, kept: str | tuple[str, ...], lacks: str
) -> None:
    state = state_of(TINY_VARIANTS[1])
    for key in [key for key in state if key.startswith("linear_f.") and not key.endswith(kept)]:
        del state[key]
    require_refused(state, tmp_path, rf"is not of the family tiny: it {lacks}")


def zero(value: Tensor) -> Tensor:
    return torch.zeros_like(value)


def negate(value: Tensor) -> Tensor:
    return value - 2


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        (VARIANCE, negate, r"holds a negative running variance, -1\.\d+, in KEY\.$"),
        ("output_layer.0.stored_var", negate, r"holds a negative running variance, -1\.\d+, in KEY\.$"),
        (WEIGHT, zero, r"holds nan in KEY once its norm is folded: every value must be finite in float32\.$"),
        ("blocks.0.0.bn1.gain.weight", zero, r"holds nan in KEY once its norm is folded"),
        ("linear_f.weight", zero, r"holds nan in KEY once its norm is folded"),
        (WEIGHT, lambda value: value[:, :1], r"holds KEY of shape \(8, 1, 3, 3\): expected \(8, 8, 3, 3\)\.$"),
        ("linear.bias", lambda value: value[:2], r"holds KEY of shape \(2,\): expected \(1536,\)\.$"),
        ("linear.bias", lambda value: value * torch.nan, r"holds nan in KEY: every value must be finite in float32\.$"),
        ("linear.u0", lambda value: value[0], r"holds KEY of shape \(1536,\): expected \(1, 1536\)\.$"),
    ],
)
def test_a_weight_that_is_not_sound_is_named(
    tmp_path: Path, key: str, change: Callable[[Tensor], Tensor], expected: str
) -> None:
    state = state_of(TINY_VARIANTS[1])
    state[key] = change(state[key])
    require_refused(state, tmp_path, expected.replace("KEY", re.escape(key)))


def test_a_vector_without_a_share_in_its_weight_is_refused(tmp_path: Path) -> None:
    """The estimated norm is then zero, although the weight is not."""
    state = state_of(TINY)
    state["blocks.3.0.conv2.u0"] = torch.zeros(1, 8)
    require_refused(state, tmp_path, rf"holds (nan|inf|-inf) in {re.escape(WEIGHT)} once its norm is folded")


@pytest.mark.parametrize(("full", "message"), [(True, "resnet"), (False, "convnet")])
def test_the_checkpoint_of_either_variant_is_recognised_as_another_family(
    tmp_path: Path, full: bool, message: str
) -> None:
    variant = FAMILY.list_variants()[full]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in variant.module_class().state_dict().items()}
    path = save({key: torch.tensor(0.25).expand(shape) for key, shape in shapes.items()}, tmp_path / "generator.pt")
    expected = rf"is of the family ieagan, not {message}: pass --family ieagan\.$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, message)
