"""Random checkpoints of both families, in every format that training programs write, and graphs of them."""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

import pytest
import safetensors.torch
import torch

import export.pipeline
from export import parity, random_weights
from export.checkpoint import load_checkpoint
from export.families import FAMILIES, Family, load_family
from export.families.generator_module import LATENT_DRAW, LATENT_INPUT, GeneratorModule
from export.pipeline import ExportOptions, export_checkpoint
from export.random_weights import HitStatistics, build_random_model
from export.torch_graph import export_to_onnx
from pxdbg_runtime.sensors import N_SENSORS
from tests.made_once import make_once

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    from torch import Tensor

    from pxdbg_runtime.model.graph_file import GraphFile

FAMILY_NAMES: Final = ("convnet", "resnet")
"""The families that take latents alone."""
FIRST_CHECKPOINT: Final = 1
"""Seed of the weights that most tests look at."""
BUSY: Final = HitStatistics(occupancy=0.05, mean_charge=10)
"""More hits than the real detector has, so that a comparison of digits says more."""


class FlatNet(GeneratorModule):
    """The smallest generator there could be: all rows of an image are equal. Its export takes no time."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(96, 768)

    def full_image(self, latent: Tensor) -> Tensor:
        """Compute (n, 1, 256, 768) from (n, 96)."""
        return torch.tanh(self.fc(latent)).view(-1, 1, 1, 768).expand(-1, 1, 256, 768)


class SmallNet(GeneratorModule):
    """A generator of one linear layer, two convolutions and a batch norm: its checkpoint takes two kilobytes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(96, 2 * 2 * 3)
        self.conv = torch.nn.Conv2d(2, 3, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.last = torch.nn.Conv2d(3, 1, 1)

    def full_image(self, latent: Tensor) -> Tensor:
        """Compute (n, 1, 256, 768) from (n, 96)."""
        seed = self.fc(latent).view(-1, 2, 2, 3)
        values = self.last(torch.relu(self.norm(self.conv(seed))))
        return torch.tanh(torch.nn.functional.interpolate(values, size=(256, 768), mode="nearest"))


def family_class(family: str) -> type[GeneratorModule]:
    """Give the class of a family, real or one of this module's."""
    own: dict[str, type[GeneratorModule]] = {"small": SmallNet, "flat": FlatNet}
    return own.get(family) or load_family(family).module_class


def register_family(patched: pytest.MonkeyPatch, name: str, kind: type[GeneratorModule] | Family) -> None:
    """Register a family, or a module that takes latents alone as one, for as long as the patch lasts."""
    if not isinstance(kind, Family):
        kind = Family(
            name=name, module_class=kind, draws=(LATENT_DRAW,), inputs=(LATENT_INPUT,), cut=None, min_charge=1
        )
    declaring = SimpleNamespace(FAMILY=kind)
    patched.setitem(sys.modules, f"tests.family_{name}", declaring)
    patched.setitem(FAMILIES, name, f"tests.family_{name}")


def flat_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Save a checkpoint of the family ``flat``, random weights; return the path."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"fc.weight": (768, 96), "fc.bias": (768,)}
    weights = {key: torch.randn(shape, generator=generator) / 10 for key, shape in shapes.items()}
    return save(weights, folder / f"flat-{seed}.pt")


@functools.cache
def export_flat(seed: int = 0) -> onnx.ModelProto:
    """Let PyTorch's exporter write the graph of `flat_checkpoint`, once in a run of the tests: do not change it."""

    def make(folder: Path) -> onnx.ModelProto:
        with pytest.MonkeyPatch.context() as patched:
            register_family(patched, "flat", FlatNet)
            return export_to_onnx(load_checkpoint(flat_checkpoint(folder, seed), "flat"), load_family("flat"))

    return make_once(f"flat-graph-{seed}", make)


def use_known_flat_graph(patched: pytest.MonkeyPatch, seed: int = 0) -> None:
    """Let exports of `flat_checkpoint` use the graph of PyTorch's exporter that is known: for tests of later steps."""
    patched.setattr(export.pipeline, "export_to_onnx", lambda *_: export_flat(seed))


@dataclass(frozen=True, kw_only=True)
class Export:
    """A model, its checkpoint, and the graph that was made of it."""

    family: str
    model: GeneratorModule
    checkpoint: Path
    graph: GraphFile
    told: tuple[str, ...]


def random_model(family: str | type[GeneratorModule], seed: int = 0) -> GeneratorModule:
    """Make a model with the weights of PyTorch's own initialisation and lively batch-norm statistics: quick."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (family_class(family) if isinstance(family, str) else family)()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                    assert values is not None
                    values.uniform_(0.5, 1.5)
        for key, values in (*model.named_buffers(), *model.named_parameters()):
            if key.endswith(("stored_mean", "stored_var", ".gain", "output_layer.0.bias")):
                values.data.uniform_(0.5, 1.5)
    return model.eval()


def light_state(family: str, value: float = 0.25) -> dict[str, Tensor]:
    """Make a sound state dict that takes a few kilobytes on disk: every weight is one number, expanded."""
    return {
        key: torch.tensor(0) if key.endswith("num_batches_tracked") else torch.tensor(value).expand(weight.shape)
        for key, weight in family_class(family)().state_dict().items()
    }


def save(content: object, path: Path, *, legacy: bool = False) -> Path:
    """Save what a checkpoint holds with torch.save; return the path."""
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def save_safetensors(state: dict[str, Tensor], path: Path) -> Path:
    """Save a state dict with safetensors; return the path."""
    safetensors.torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def demonstration_export(folder: Path, family: str | Family, seed: int) -> Export:
    """Make a random model with many hits, save its checkpoint in a folder, and export that."""
    name = family if isinstance(family, str) else family.name
    return export_model(folder, name, build_random_model(family, seed, BUSY), f"{name}-{seed}")


def export_model(folder: Path, family: str, model: GeneratorModule, stem: str) -> Export:
    """Save the checkpoint of a model of a family in a folder, and export that."""
    checkpoint = save(model.state_dict(), folder / f"{stem}.pt")
    told: list[str] = []
    graph = export_checkpoint(
        checkpoint,
        family,
        folder / "graphs",
        ExportOptions(nature="demonstration", provenance="Random weights."),
        log=told.append,
    )
    return Export(family=family, model=model, checkpoint=checkpoint, graph=graph, told=tuple(told))


@functools.cache
def export_first(family: str) -> Export:
    """Export a family's first checkpoint, once in a run of the tests: do not change it.

    To save time, its statistics are measured on a tenth of the usual images, its parity on half of them.
    """

    def make(folder: Path) -> Export:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(random_weights, "_STATISTICS_BATCHES", 2)
            patched.setattr(random_weights, "_BATCH_SIZE", 3)
            patched.setattr(parity, "_SENSORS", range(0, N_SENSORS, 10))
            return demonstration_export(folder, family, FIRST_CHECKPOINT)

    return make_once(f"first-{family}", make)
