"""The generator is found wherever a training program left it, and what else is there is named."""

from __future__ import annotations

import argparse
import datetime as dt
import enum
import types
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.checkpoint import load_checkpoint, state_dicts
from export.errors import CheckpointError
from tests.checkpoints import SmallNet, light_state, random_model, register_family, save, save_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.families.generator_module import GeneratorModule

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> None:
    register_family(monkeypatch, "small", SmallNet)


@pytest.fixture
def model() -> GeneratorModule:
    return random_model("small", seed=5)


def other_state() -> State:
    """Make the state dict of another generator of the family."""
    return dict(random_model("small", seed=6).state_dict())


def discriminator_state() -> State:
    discriminator = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 1))
    return dict(discriminator.state_dict())


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def require_found(
    content: object, folder: Path, model: GeneratorModule, path: str | None, *, state_key: str | None = None
) -> None:
    """Require that the weights of a model are found in a file, and that it is said where."""
    lines: list[str] = []
    found = load_checkpoint(save(content, folder / "generator.pt"), "small", state_key=state_key, log=lines.append)
    for key, value in model.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(found.state_dict()[key], value), key
    assert lines == ([] if path is None else [f"took the state dict at {path}"])


def require_refused(content: object, folder: Path, expected: str, *, state_key: str | None = None) -> None:
    path = save(content, folder / "refused.pt")
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, "small", state_key=state_key)


# Prefixes


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("module.", "module"),
        ("module.module.", "module.module"),
        ("_orig_mod.", None),
        ("module._orig_mod.", "module"),
        ("_orig_mod._orig_mod.", None),
        ("_fsdp_wrapped_module._checkpoint_wrapped_module.", None),
        ("generator.", "generator"),
        ("netG.module.", "netG.module"),
        ("gan.networks.G_1.", "gan.networks.G_1"),
    ],
)
def test_any_common_prefix_is_dropped(model: GeneratorModule, tmp_path: Path, prefix: str, path: str | None) -> None:
    require_found(under(prefix, model.state_dict()), tmp_path, model, path)


def test_the_state_dict_of_an_averaged_model_is_found(model: GeneratorModule, tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    require_found(averaged.state_dict(), tmp_path, model, "module")


def test_a_key_with_and_without_a_wrapper_is_two_weights(model: GeneratorModule, tmp_path: Path) -> None:
    content = {"_orig_mod.fc.bias": torch.ones(12), **model.state_dict()}
    require_refused(content, tmp_path, r"it holds _orig_mod\.fc\.bias, which is unknown\.$")


def test_two_tensors_under_a_key_of_the_state_dict_are_refused(model: GeneratorModule, tmp_path: Path) -> None:
    twice = {**model.state_dict(), "fc": {"bias": torch.zeros(12)}}
    require_refused({"G": twice}, tmp_path, r"holds two tensors under 'G\.fc\.bias': save the state dict alone")
    beside = {"G": dict(model.state_dict()), "losses": {1: torch.ones(1), "1": torch.zeros(1)}}
    require_found(beside, tmp_path, model, "G")


# Containers


class Saved(NamedTuple):
    """As a training program defines one."""

    epoch: int
    generator: State


def beside_a_discriminator(state: State) -> object:
    both = under("generator.", state) | under("discriminator.", discriminator_state())
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    return {"epoch": 12, "state_dict": both, "optimizer_states": [optimizer, optimizer], "lr_schedulers": []}


def by_layer(state: State) -> dict[str, State]:
    layers: dict[str, State] = {}
    for key, value in state.items():
        layer, _, name = key.partition(".")
        layers.setdefault(layer, {})[name] = value
    return layers


def double(value: Tensor) -> Tensor:
    return torch.cat([value, value]) if value.ndim else value


@pytest.mark.parametrize(
    ("pack", "path"),
    [
        (lambda state: {"model_state_dict": state, "epoch": 3}, "model_state_dict"),
        (lambda state: {"G": state, "D": discriminator_state()}, "G"),
        (lambda state: {"networks": {"generator": {"weights": OrderedDict(state)}}}, "networks.generator.weights"),
        (lambda state: {"ema": {"decay": 0.999, "shadow": under("module.", state)}}, "ema.shadow.module"),
        (lambda state: {"initted": torch.tensor(True), **under("ema_model.", state)}, "ema_model"),
        (lambda state: [("epoch", 3), {"nets": (state, discriminator_state())}], "1.nets.0"),
        (beside_a_discriminator, "state_dict.generator"),
        (lambda state: {"epoch": 3, "lr": 1e-4, **state}, None),
        (lambda state: {key: state[key] for key in reversed(state)}, None),
        (lambda state: {key.replace("conv.", "conv._orig_mod."): value for key, value in state.items()}, None),
        (lambda state: {"n_averaged": torch.tensor(3), **state}, None),
        (lambda state: {"G": by_layer(state)}, "G"),
        (lambda state: {"D": {key: double(value) for key, value in other_state().items()}, "G": state}, "G"),
        (lambda state: {"run": argparse.Namespace(step=3, generator=state)}, "run.generator"),
        (lambda state: {"last": Saved(3, state)}, "last.1"),
    ],
    ids=[
        *("model_state_dict", "G", "nested", "ema", "ema-pytorch", "lists", "lightning", "beside", "other-order"),
        *("a compiled layer", "a counter of averages", "each layer for itself", "other shapes", "an object"),
        "a named tuple",
    ],
)
def test_the_one_state_dict_that_fits_is_found(
    model: GeneratorModule, tmp_path: Path, pack: Callable[[State], object], path: str | None
) -> None:
    require_found(pack(dict(model.state_dict())), tmp_path, model, path)


# What lies beside the weights


class Stage(enum.Enum):
    """As a training program defines one."""

    WARM = "warm"


@dataclass
class Settings:
    """As a training program defines them."""

    width: int
    stage: Stage


class AttributeDict(dict[str, object]):
    """As Lightning keeps hyper parameters."""


class AttributesAndItems(dict[str, object]):
    """A dictionary whose items are its attributes too."""

    def __init__(self, **items: object) -> None:
        super().__init__(**items)
        self.__dict__ = self


class Optimizer:
    """As some training programs pickle theirs: with the state of each parameter under the parameter."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.state = {parameter: {"exp_avg": torch.zeros(1)} for parameter in parameters}


class Slotted:
    """An object whose state is no dictionary."""

    __slots__ = ("width",)

    def __init__(self) -> None:
        self.width = 3


HARMLESS = {
    "scalars": [np.float64(0.5), np.int64(3), np.bool_(True)],
    "numpy": [np.arange(3), np.dtype("f4"), np.float32, np.random.default_rng()],
    "paths": [Path("runs/1"), dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.timedelta(1)],
    "options": argparse.Namespace(width=3, folder=Path("a")),
    "plain": [types.SimpleNamespace(a=1), OrderedDict(a=1), defaultdict(list, a=[1]), deque([1, 2]), frozenset({1})],
    "own": [Settings(3, Stage.WARM), AttributeDict(width=3), Stage.WARM],
    "numbers": [1, 0.5, None, True, 2**80, "text", b"bytes", {1, 2}, 1j, range(3)],
    "types": [int, float, bool, str, bytes, list, range, defaultdict(int, a=1)],
    "torch": [torch.Size([2]), torch.float16, torch.device("cpu"), torch.Generator().get_state()],
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_is_no_tensor_is_left_aside(model: GeneratorModule, tmp_path: Path, legacy: bool) -> None:
    loss = {} if legacy else {"loss": nn.BCELoss(), "activation": nn.ReLU}  # the legacy format stores source code
    content = {"hyper_parameters": HARMLESS | loss, **HARMLESS, "state_dict": under("generator.", model.state_dict())}
    path = save(content, tmp_path / "generator.ckpt", legacy=legacy)
    found = load_checkpoint(path, "small")
    assert torch.equal(found.state_dict()["fc.weight"], model.state_dict()["fc.weight"])


def test_the_same_tensor_as_item_and_attribute_is_one(
    model: GeneratorModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = AttributesAndItems(G=dict(model.state_dict()))
    for _ in range(10):
        content = AttributesAndItems(inner=content)
    monkeypatch.setattr(state_dicts, "_MAX_NODES", 100)  # each level is read once
    require_found(content, tmp_path, model, ".".join([*["inner"] * 10, "G"]))


def test_tensors_are_no_keys(model: GeneratorModule, tmp_path: Path) -> None:
    optimizer = Optimizer([nn.Parameter(torch.zeros(2)) for _ in range(2)])
    require_found({"G": dict(model.state_dict()), "optimizer": optimizer}, tmp_path, model, "G")


def test_an_object_that_cannot_be_left_aside_is_named(tmp_path: Path) -> None:
    expected = r"holds objects that cannot be ignored \(tests\.\S+\.Slotted\): save the state dict alone, torch\.save"
    require_refused({"model": light_state("small"), "settings": Slotted()}, tmp_path, expected)


class Node:
    """A node of a configuration, which knows its neighbours."""

    def __init__(self, *neighbours: object) -> None:
        self.neighbours = list(neighbours)


def test_objects_that_know_their_parents_are_read_once(
    model: GeneratorModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_dicts, "_MAX_NODES", 500)
    root = Node()
    for _ in range(10):
        child = Node(root)
        child.neighbours += [Node(child) for _ in range(5)]
        root.neighbours.append(child)
    content = {"config": root, "G": dict(model.state_dict())}
    content["again"] = [content, content]
    require_found(content, tmp_path, model, "G")


def test_objects_that_all_know_one_another_are_refused(
    model: GeneratorModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_dicts, "_MAX_NODES", 5000)
    nodes = [Node() for _ in range(8)]
    for node in nodes:
        node.neighbours += [other for other in nodes if other is not node]
    expected = r"holds more than 5,000 entries, shared ones counted each time: save the state dict alone"
    require_refused({"nodes": nodes, "G": dict(model.state_dict())}, tmp_path, expected)


# Several, and none


def test_of_several_the_paths_are_listed_and_each_can_be_named(model: GeneratorModule, tmp_path: Path) -> None:
    state = dict(model.state_dict())
    content = {"G": other_state(), "g_ema": under("module.", state), "ema": {"shadow": other_state()}, "D": {}}
    expected = r"holds several state dicts, G, g_ema\.module and ema\.shadow: choose with --state-key\.$"
    require_refused(content, tmp_path, expected)
    require_found(content, tmp_path, model, "g_ema.module", state_key="g_ema")
    require_found(content, tmp_path, model, "g_ema.module", state_key="g_ema.module")
    content = {"ema": {"shadow": state, "backup": other_state()}, **under("net.", other_state())}
    require_found(content, tmp_path, model, "ema.shadow", state_key="ema.shadow")
    expected = r"several state dicts, ema\.shadow and ema\.backup: choose"
    require_refused(content, tmp_path, expected, state_key="ema")


def test_the_top_of_a_file_can_be_named(model: GeneratorModule, tmp_path: Path) -> None:
    content = {**model.state_dict(), "ema": other_state()}
    require_refused(content, tmp_path, r"several state dicts, \. \(the top of the file\) and ema: choose")
    require_found(content, tmp_path, model, None, state_key=".")


@pytest.mark.parametrize("inner", ["ema", "_orig_mod"])
def test_a_second_state_dict_below_the_first_is_never_taken_unasked(
    model: GeneratorModule, tmp_path: Path, inner: str
) -> None:
    """In a flat file, as every file of safetensors is."""
    top, second = model, random_model("small", seed=6)
    path = save_safetensors({**top.state_dict(), **under(f"{inner}.", second.state_dict())}, tmp_path / "a.safetensors")
    first = r"\. \(the top of the file\)"  # safetensors sorts the keys
    expected = rf"several state dicts, ({first} and {inner}|{inner} and {first}): choose with --state-key\.$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, "small")
    for state_key, chosen in ((".", top), (inner, second)):
        found = load_checkpoint(path, "small", state_key=state_key).state_dict()
        assert torch.equal(found["fc.weight"], chosen.state_dict()["fc.weight"])
    alone = under(f"{inner}.", dict(second.state_dict()))
    require_found(alone, tmp_path, second, None if inner == "_orig_mod" else inner, state_key=inner)


def test_both_of_two_state_dicts_are_refused_if_each_holds_unknown_keys(model: GeneratorModule, tmp_path: Path) -> None:
    content = {**model.state_dict(), **under("ema.", other_state()), "ema.decay": torch.tensor(0.5)}
    require_refused(content, tmp_path, r"is not of the family small: under 'ema' it holds decay, which is unknown\.$")


def test_a_named_path_with_all_weights_stands_for_no_deeper_one(model: GeneratorModule, tmp_path: Path) -> None:
    nested = {**model.state_dict(), "extra": torch.zeros(1), "ema": other_state()}
    expected = "it holds extra, which is unknown"
    require_refused({"g": nested}, tmp_path, rf"under 'g' {expected}\.$", state_key="g")
    require_refused(nested, tmp_path, rf"is not of the family small: {expected}\.$", state_key=".")


def test_a_path_where_none_lies_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    content = {"G": light_state("small"), "ema": {"decay": 0.5}}
    for state_key in ("ema", "g_ema", "G.fc", "state_dict"):
        expected = rf"holds no state dict under '{state_key}' \(found: G\)\.$"
        require_refused(content, tmp_path, expected, state_key=state_key)
    expected = r"holds no state dict under 'ema' \(found: \. \(the top of the file\)\)\.$"
    require_refused(light_state("small"), tmp_path, expected, state_key="ema")


def test_the_nearest_candidate_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    state = light_state("small")
    nearest = {key: value for key, value in state.items() if key != "conv.weight"} | {"conv.wieght": torch.zeros(1)}
    content = {"D": discriminator_state(), "nets": {"G": nearest, "H": {"fc.bias": state["fc.bias"]}}}
    expected = r"under 'nets\.G' it lacks conv\.weight and holds conv\.wieght, which is unknown\.$"
    require_refused(content, tmp_path, rf"is not of the family small: {expected}")
    expected = r"under 'nets\.H' it lacks conv\.bias, conv\.weight, fc\.weight, last\.bias and 5 more\.$"
    require_refused(content, tmp_path, expected, state_key="nets.H")


@pytest.mark.parametrize(("family", "other"), [("convnet", "resnet"), ("small", "convnet")])
def test_a_nested_state_dict_of_another_family_is_recognised(tmp_path: Path, family: str, other: str) -> None:
    path = save({"D": discriminator_state(), "g": under("module.", light_state(other))}, tmp_path / "generator.pt")
    with pytest.raises(CheckpointError, match=rf"is of the family {other}, not {family}: pass --family {other}\.$"):
        load_checkpoint(path, family)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (torch.zeros(2), "holds a Tensor: expected a state dict"),
        (None, "holds a NoneType: expected a state dict"),
        ({}, r"holds no weights of the family small, such as fc\.weight: it holds no tensors\.$"),
        ([torch.zeros(2)], r"holds no weights of the family small, such as fc\.weight: its tensors are 0\.$"),
        ({0: torch.zeros(2), "a": {"b": torch.zeros(2)}}, r"such as fc\.weight: its tensors are 0, a\.b\.$"),
        (discriminator_state(), r"its tensors are 0\.bias, 0\.weight, 1\.bias, 1\.num_batches_tracked and 5 more\.$"),
        ({"fc.weight": [0.5, 0.5]}, r"holds list under 'fc\.weight': expected a tensor\.$"),
        ({"model": {"fc.weight": np.zeros(2)}}, r"holds ndarray under 'model\.fc\.weight': expected a tensor\.$"),
    ],
)
def test_what_holds_no_state_dict_is_refused(tmp_path: Path, content: object, expected: str) -> None:
    require_refused(content, tmp_path, expected)
