"""Rebuild the checkpoint of a stand-in from its file: a seed and fitted tensors.

The metadata of the safetensors file has `family`, `seed` and `checkpoint`, which is the `compute_digest` of the state
dict. Its tensors are

- `level`, shape (19,): constant, step and slopes of the level;
- `measured.<convolution>.factors` and `.means`: weights and means of the gated sums in the early part;
- `late.<name>`: the state dict of the late part.

The first is float64, the others are float32, but for counters of batches. The file of IEA-GAN has the tensors of
`ieagan_layers.list_fitted_shapes` instead.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from artifacts.standins.convnet_layers import CONVNET
from artifacts.standins.early_layers import EarlyLayers, State, build_early_layers
from artifacts.standins.ieagan_layers import N_ROLES, build_ieagan, list_fitted_shapes
from artifacts.standins.level import N_PIECES, Level
from artifacts.standins.resnet_layers import RESNET
from export.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from export.families.generator_module import GeneratorModule

__all__ = ["compute_digest", "rebuild_checkpoint"]

_EARLY_LAYERS: Final[dict[str, EarlyLayers]] = {"convnet": CONVNET, "resnet": RESNET}
_SEED: Final = re.compile("[0-9]{1,20}")
_LEVEL: Final = "level"
_FITTED: Final = "measured."
_LATE: Final = "late."
_COUNTER: Final = "num_batches_tracked"
_FITTED_SHAPES: Final = {
    **{
        family: {
            _LEVEL: (1 + N_PIECES,),
            **{_FITTED + name: shape for name, shape in early.list_fitted_shapes().items()},
        }
        for family, early in _EARLY_LAYERS.items()
    },
    "ieagan": list_fitted_shapes(),
}
"""Tensors of a stand-in file whose shapes are checked, by family."""


def rebuild_checkpoint(path: Path) -> State:
    """Rebuild the state dict of a stand-in file, the same bit for bit on every machine.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is not a stand-in file or gives a state dict with another SHA-256.
    """
    metadata, tensors = _read_file(path)
    family, seed = metadata.get("family", ""), metadata.get("seed", "")
    if family not in _FITTED_SHAPES or not _SEED.fullmatch(seed):
        raise CheckpointError(path, "is not a stand-in file: it names no family, or no seed of 1 to 20 digits.")
    for name, shape in _FITTED_SHAPES[family].items():
        if name not in tensors or tensors[name].shape != shape:
            raise CheckpointError(path, f"is not a stand-in file: it has no tensor {name} of shape {shape}.")
    if early := _EARLY_LAYERS.get(family):
        _check_types(path, tensors)
        state = _build(early, int(seed), tensors)
    else:
        roles = tensors["roles"]
        if roles.dtype != torch.int8 or not ((roles >= 0) & (roles < N_ROLES)).all():
            raise CheckpointError(path, f"is not a stand-in file: its roles are not int8 from 0 to {N_ROLES - 1}.")
        state = build_ieagan(int(seed), tensors)
    if compute_digest(state) != metadata.get("checkpoint"):
        raise CheckpointError(
            path, "gives another state dict than the one whose SHA-256 it has: the file was changed. Restore it."
        )
    return state


def _check_types(path: Path, tensors: State) -> None:
    """Check the types of all tensors, none of which is converted; raises `CheckpointError`."""
    for name, tensor in tensors.items():
        expected = {_LEVEL: torch.float64}.get(name, torch.int64 if name.endswith(_COUNTER) else torch.float32)
        if tensor.dtype != expected:
            message = f"is not a stand-in file: its tensor {name} is {tensor.dtype}, expected {expected}."
            raise CheckpointError(path, message)


def _build(early: EarlyLayers, seed: int, tensors: State) -> State:
    constant, step, *slopes = tensors[_LEVEL].tolist()
    level = Level(constant=constant, step=step, slopes=tuple(slopes))
    state = _build_empty_state(early.module())
    build_early_layers(early, state, seed, level, _select(tensors, _FITTED))
    state.update(_select(tensors, _LATE))
    return state


def compute_digest(state: State) -> str:
    """Compute the SHA-256 of names and values of all tensors, sorted by name, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_file(path: Path) -> tuple[dict[str, str], State]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(path, f"cannot be read: {error}.") from error


def _select(tensors: State, prefix: str) -> State:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _build_empty_state(model: GeneratorModule) -> State:
    """Set weights and biases to zero and batch norms to the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
            module.running_var.fill_(1.0 - module.eps)  # the batch norm adds eps
        elif isinstance(module, (nn.Linear, nn.Conv2d)):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}
