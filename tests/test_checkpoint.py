"""Checkpoints: every sound one loads to the same weights, and every other is refused in one sentence."""

from __future__ import annotations

import os
import random
import zipfile
from typing import TYPE_CHECKING, Final

import pytest
import torch
from torch import Tensor, nn

from export.checkpoint import load_checkpoint, read_state_dict
from export.errors import CheckpointError
from tests.checkpoints import FAMILY_NAMES, light_state, random_model, save, save_safetensors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.models import GeneratorModule

State = dict[str, Tensor]

WEIGHT: Final = "blocks.2.conv1.weight"
VARIANCE: Final = "blocks.3.norm2.running_var"
N_FLIPS: Final = 400
SMALL: Final[State] = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2, dtype=torch.float16)}


@pytest.fixture(scope="module")
def model() -> GeneratorModule:
    return random_model("resnet", seed=21)


def require_weights_of(expected: GeneratorModule, found: GeneratorModule) -> None:
    assert not found.training
    for (key, value), (found_key, found_value) in zip(
        expected.state_dict().items(), found.state_dict().items(), strict=True
    ):
        assert key == found_key
        assert torch.equal(value, found_value), key


# What is accepted


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_files_of_torch_save_load(model: GeneratorModule, tmp_path: Path, legacy: bool) -> None:
    path = save(model.state_dict(), tmp_path / "generator.pt", legacy=legacy)
    require_weights_of(model, load_checkpoint(path, "resnet"))


def test_safetensors_files_load(model: GeneratorModule, tmp_path: Path) -> None:
    path = save_safetensors(model.state_dict(), tmp_path / "generator.safetensors")
    require_weights_of(model, load_checkpoint(path, "resnet"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "ema"])
def test_wrapped_state_dicts_load_beside_what_training_leaves(
    model: GeneratorModule, tmp_path: Path, wrapper: str
) -> None:
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    content = {"epoch": 12, "optimizer": optimizer, wrapper: model.state_dict(), "loss": 0.25, "note": "fine"}
    require_weights_of(model, load_checkpoint(save(content, tmp_path / "generator.pth"), "resnet"))


def test_one_of_two_wrapped_state_dicts_can_be_chosen(model: GeneratorModule, tmp_path: Path) -> None:
    content = {"model": light_state("resnet"), "ema": model.state_dict()}
    path = save(content, tmp_path / "generator.pt")
    require_weights_of(model, load_checkpoint(path, "resnet", wrapper="ema"))
    plain = load_checkpoint(path, "resnet", wrapper="model")
    assert all(bool((parameter == 0.25).all()) for parameter in plain.parameters())


@pytest.mark.parametrize("prefix", ["module.", "module.module."])
def test_the_prefix_of_parallel_training_is_dropped(model: GeneratorModule, tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    require_weights_of(model, load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet"))


def test_the_prefix_is_dropped_within_a_wrapper(model: GeneratorModule, tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in model.state_dict().items()}
    require_weights_of(model, load_checkpoint(save({"state_dict": state}, tmp_path / "generator.pt"), "resnet"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floating_point_types_become_float32(model: GeneratorModule, tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in model.state_dict().items()}
    loaded = load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")
    for key, value in loaded.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert value.dtype == torch.float32
            assert torch.equal(value, state[key].float()), key


def test_training_counters_may_be_absent(model: GeneratorModule, tmp_path: Path) -> None:
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert len(state) < len(model.state_dict())
    require_weights_of(model, load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet"))


def test_training_counters_have_no_part_in_the_model(model: GeneratorModule, tmp_path: Path) -> None:
    state = {
        key: torch.tensor(81_250) if key.endswith("num_batches_tracked") else value
        for key, value in model.state_dict().items()
    }
    require_weights_of(model, load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet"))


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_parameters_and_expanded_weights_load(family: str, tmp_path: Path) -> None:
    path = save({key: nn.Parameter(value, False) for key, value in light_state(family).items()}, tmp_path / "a.pt")
    loaded = load_checkpoint(path, family)
    assert loaded.family == family
    assert all(bool((parameter == 0.25).all()) for parameter in loaded.parameters())


# What is refused: the keys


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    state = light_state("resnet")
    del state[WEIGHT]
    with pytest.raises(CheckpointError, match=rf"is not that of a resnet: it lacks {WEIGHT}\.$") as caught:
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")
    assert caught.value.path == tmp_path / "generator.pt"
    assert isinstance(caught.value, ValueError)


def test_an_unexpected_key_is_named(tmp_path: Path) -> None:
    state = light_state("resnet") | {"blocks.5.conv.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=r"it holds blocks\.5\.conv\.weight, which is not known\.$"):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")


def test_missing_and_unexpected_keys_are_named_together(tmp_path: Path) -> None:
    state = light_state("resnet")
    state["fc.wieght"] = state.pop("fc.weight")
    state["extra"] = torch.zeros(1)
    expected = r"it lacks fc\.weight and holds extra, fc\.wieght, which are not known\.$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")


def test_of_many_missing_keys_some_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    state = {key: value for key, value in light_state("resnet").items() if not key.startswith("blocks")}
    expected = (
        r"it lacks blocks\.0\.conv\.bias, blocks\.0\.conv\.weight, blocks\.0\.conv1\.bias, "
        r"blocks\.0\.conv1\.weight and 66 more\.$"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")


def test_a_prefix_of_some_keys_alone_is_not_dropped(tmp_path: Path) -> None:
    state = light_state("resnet")
    state[f"module.{WEIGHT}"] = state.pop(WEIGHT)
    with pytest.raises(CheckpointError, match=rf"lacks {WEIGHT} and holds module\.{WEIGHT}, which is not known"):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")


@pytest.mark.parametrize(("family", "other"), [("convnet", "resnet"), ("resnet", "convnet")])
def test_the_checkpoint_of_the_other_model_is_recognised(tmp_path: Path, family: str, other: str) -> None:
    path = save(light_state(other), tmp_path / "generator.pt")
    expected = rf"is that of a {other}, not of a {family}: pass --model {other}\.$"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, family)


def test_an_empty_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it lacks blocks\.0\.conv\.bias, .* more"):
        load_checkpoint(save({}, tmp_path / "generator.pt"), "resnet")


# What is refused: the wrappers


def test_two_wrapped_state_dicts_ask_for_a_choice(tmp_path: Path) -> None:
    path = save({"state_dict": light_state("resnet"), "ema": light_state("resnet")}, tmp_path / "generator.pt")
    with pytest.raises(CheckpointError, match=r"several state dicts, state_dict and ema: choose with --weights"):
        load_checkpoint(path, "resnet")


def test_a_wrapper_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = save({"model": light_state("resnet")}, tmp_path / "generator.pt")
    with pytest.raises(CheckpointError, match=r"holds no state dict under 'ema' \(found: model\)\.$"):
        load_checkpoint(path, "resnet", wrapper="ema")
    bare = save(light_state("resnet"), tmp_path / "bare.pt")
    with pytest.raises(CheckpointError, match=r"holds no state dict under 'ema' \(found: none\)\.$"):
        load_checkpoint(bare, "resnet", wrapper="ema")


# What is refused: the values


def shortened(value: Tensor) -> Tensor:
    return value[:-1]


def transposed(value: Tensor) -> Tensor:
    return value.transpose(0, 1)


def complex_valued(value: Tensor) -> Tensor:
    return value.to(torch.complex64)


def holding(number: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    def changed(value: Tensor) -> Tensor:
        value = value.to(dtype).clone()
        value.view(-1)[-1] = number
        return value

    return changed


@pytest.mark.parametrize(
    ("key", "change", "expected"),
    [
        (WEIGHT, shortened, rf"holds {WEIGHT} of shape \(63, 128, 3, 3\): expected \(64, 128, 3, 3\)\.$"),
        (WEIGHT, transposed, rf"holds {WEIGHT} of shape \(128, 64, 3, 3\): expected \(64, 128, 3, 3\)\.$"),
        (WEIGHT, holding(float("nan")), rf"holds nan in {WEIGHT}: every value must be finite"),
        (WEIGHT, holding(float("inf")), rf"holds inf in {WEIGHT}: every value must be finite"),
        (VARIANCE, holding(float("-inf")), rf"holds -inf in {VARIANCE}: every value must be finite"),
        (WEIGHT, holding(1e39, torch.float64), rf"holds 1e\+39 in {WEIGHT}: every value must be finite in float32"),
        (VARIANCE, holding(-0.5), rf"holds a negative running variance, -0\.5, in {VARIANCE}\.$"),
        (WEIGHT, Tensor.int, rf"holds {WEIGHT} as int32: expected dense float32, float16"),
        (WEIGHT, Tensor.bool, rf"holds {WEIGHT} as bool: expected dense float32"),
        ("fc.weight", complex_valued, r"holds fc\.weight as complex64: expected dense float32"),
        (WEIGHT, Tensor.to_sparse, rf"holds {WEIGHT} as float32 \(torch\.sparse_coo\): expected dense"),
    ],
)
def test_a_weight_that_is_not_sound_is_named(
    tmp_path: Path, key: str, change: Callable[[Tensor], Tensor], expected: str
) -> None:
    state = light_state("resnet")
    state[key] = change(state[key])
    path = save(state, tmp_path / "generator.pt")
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, "resnet")


def test_a_tensor_without_data_is_refused(tmp_path: Path) -> None:
    state = light_state("resnet")
    state[WEIGHT] = torch.empty(state[WEIGHT].shape, device="meta")
    with pytest.raises(CheckpointError, match=WEIGHT.replace(".", r"\.")):
        load_checkpoint(save(state, tmp_path / "generator.pt"), "resnet")


# What is refused: files that hold something else


class Mischief:
    """Runs a command as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, legacy: bool) -> None:
    proof = tmp_path / "it-ran"
    path = save(light_state("resnet") | {"fc.bias": Mischief(proof)}, tmp_path / "generator.pt", legacy=legacy)
    with pytest.raises(CheckpointError, match=r"carries code \((posix|nt)\.system\), which is never run"):
        load_checkpoint(path, "resnet")
    assert not proof.exists()


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickled_module_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = save(nn.Linear(2, 3), tmp_path / "module.pt", legacy=legacy)
    expected = r"carries code \(torch\.nn\.modules\.linear\.Linear\), .*save the state dict alone"
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, "resnet")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([torch.zeros(2)], "holds a list: expected a state dict"),
        (torch.zeros(2), "holds a Tensor: expected a state dict"),
        (None, "holds a NoneType: expected a state dict"),
        ({"fc.weight": [0.5, 0.5]}, r"holds list under 'fc\.weight': expected a state dict of tensors"),
        ({"epoch": 3, "fc.weight": torch.zeros(2)}, "holds int under 'epoch'"),
        ({0: torch.zeros(2)}, "holds Tensor under 0: expected a state dict of tensors"),
        ({"generator": {"fc.weight": torch.zeros(2)}}, "holds dict under 'generator'.* state_dict, model, ema"),
        ({"model": {"fc.weight": "zeros"}}, r"holds str under 'fc\.weight'"),
    ],
)
def test_what_is_no_dict_of_tensors_is_refused(tmp_path: Path, content: object, expected: str) -> None:
    path = save(content, tmp_path / "generator.pt")
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(path, "resnet")


@pytest.mark.parametrize("name", ["generator.pt", "generator.safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"Not a checkpoint.\n", b'{"fc.weight": [0.5]}', random.Random(5).randbytes(5000)],
    ids=["empty", "text", "JSON", "random"],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is no checkpoint: expected a file|is truncated or damaged"):
        load_checkpoint(path, "resnet")


def test_a_zip_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "generator.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing to see")
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        load_checkpoint(path, "resnet")


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path, "resnet")
    with pytest.raises(CheckpointError, match=r"gone\.pt cannot be read: No such file or directory"):
        load_checkpoint(tmp_path / "gone.pt", "resnet")


def test_torch_files_under_the_name_of_safetensors_are_refused(tmp_path: Path) -> None:
    path = save(light_state("resnet"), tmp_path / "generator.safetensors")
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        load_checkpoint(path, "resnet")


# Damage


def small_file(folder: Path, kind: str) -> Path:
    if kind == "safetensors":
        return save_safetensors(SMALL, folder / "small.safetensors")
    return save(SMALL, folder / "small.pt", legacy=kind == "legacy")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_whole_small_file_is_read(tmp_path: Path, kind: str) -> None:
    state = read_state_dict(small_file(tmp_path, kind))
    assert state.keys() == SMALL.keys()
    assert all(torch.equal(state[key], value) for key, value in SMALL.items())


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path, kind: str) -> None:
    path = small_file(tmp_path, kind)
    whole = path.read_bytes()
    for length in {*range(0, len(whole), max(1, len(whole) // 60)), 1, 2, 3, 4, 8, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"is (a )?truncated|is no checkpoint: expected a file"):
            read_state_dict(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_flipped_bytes_are_refused_or_read_but_never_anything_else(tmp_path: Path, kind: str) -> None:
    path = small_file(tmp_path, kind)
    whole = path.read_bytes()
    rng = random.Random(f"flips of {kind}")
    refusals: list[CheckpointError] = []
    for _ in range(N_FLIPS):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            state = read_state_dict(path)
        except CheckpointError as error:
            refusals.append(error)
        else:
            assert all(isinstance(value, Tensor) for value in state.values())
    assert len(refusals) > N_FLIPS // 20
    assert all(error.path == path and "\n" not in str(error) for error in refusals)
