"""Stand-ins: a seed, and the tensors that were measured and fitted; `checkpoint` makes the whole checkpoint of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from artifacts.standins.equalising import Factors, equalise
from artifacts.standins.foundation import lay_foundation
from artifacts.standins.level import Level
from export.errors import CheckpointError
from export.families import FAMILIES
from pxdbg_runtime.formats.atomic_write import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from export.families.generator_module import GeneratorModule

__all__ = ["StandIn", "checkpoint", "digest", "read_standin", "write_standin"]

_LATE_PARTS: Final = {
    "resnet": ("blocks.3.", "blocks.4.", "norm.", "conv."),
    "convnet": ("features.13.", "features.16.", "features.17.", "features.20."),
}
"""What the tensors of the late part begin with."""
_MEASURED: Final = "measured."
_LATE: Final = "late."
_LEVEL: Final = "level"


@dataclass(frozen=True, kw_only=True, eq=False)
class StandIn:
    """A stand-in.

    Attributes
    ----------
    family : {"convnet", "resnet"}
    seed : int
        Of the foundation.
    level : Level
    factors : dict of Tensor
        As `measure_factors` gave them.
    late : dict of Tensor
        The checkpoint's tensors of the late part.
    """

    family: str
    seed: int
    level: Level
    factors: Factors
    late: dict[str, Tensor]

    @classmethod
    def of(cls, model: GeneratorModule, seed: int, level: Level, factors: Factors) -> StandIn:
        """Take the late part from a model."""
        late = {
            name: tensor.clone()
            for name, tensor in model.state_dict().items()
            if name.startswith(_LATE_PARTS[type(model).__name__.lower()])
        }
        return cls(family=type(model).__name__.lower(), seed=seed, level=level, factors=factors, late=late)


def checkpoint(standin: StandIn) -> dict[str, Tensor]:
    """Make the whole state dict, the same bit for bit on every machine."""
    model = lay_foundation(standin.family, standin.seed, standin.level)
    equalise(model, standin.factors)
    state = model.state_dict()
    state.update(standin.late)
    return state


def digest(state: dict[str, Tensor]) -> str:
    """Compute the SHA-256 of all tensors of a checkpoint, by their names in order."""
    found = hashlib.sha256()
    for name in sorted(state):
        found.update(name.encode())
        found.update(state[name].contiguous().numpy().tobytes())
    return found.hexdigest()


def write_standin(standin: StandIn, path: Path) -> None:
    """Write it to a safetensors file, with the SHA-256 of the checkpoint that it makes."""
    level = standin.level
    tensors = {
        _LEVEL: torch.tensor([level.constant, level.step, *level.slopes], dtype=torch.float64),
        **{_MEASURED + name: tensor.contiguous() for name, tensor in standin.factors.items()},
        **{_LATE + name: tensor.contiguous() for name, tensor in standin.late.items()},
    }
    metadata = {"family": standin.family, "seed": str(standin.seed), "checkpoint": digest(checkpoint(standin))}
    with atomic_write(path) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata))


def read_standin(path: Path) -> StandIn:
    """Read what `write_standin` wrote, and make sure that it makes the same checkpoint here.

    Raises
    ------
    CheckpointError
        If it is no such file, or makes another checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(path, f"cannot be read: {error}.") from error
    if metadata.get("family") not in FAMILIES or _LEVEL not in tensors or not metadata.get("seed", "").isdigit():
        raise CheckpointError(path, "is no stand-in: python -m artifacts.standins train writes those.")
    constant, step, *slopes = tensors[_LEVEL].tolist()
    standin = StandIn(
        family=metadata["family"],
        seed=int(metadata["seed"]),
        level=Level(constant=constant, slopes=tuple(slopes), step=step),
        factors={name[len(_MEASURED) :]: tensor for name, tensor in tensors.items() if name.startswith(_MEASURED)},
        late={name[len(_LATE) :]: tensor for name, tensor in tensors.items() if name.startswith(_LATE)},
    )
    if digest(checkpoint(standin)) != metadata.get("checkpoint"):
        raise CheckpointError(path, "makes another checkpoint here than where it was written: its file was changed.")
    return standin
