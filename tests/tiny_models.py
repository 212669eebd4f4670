"""Very small generators of both architectures: their checkpoints, graphs and exports."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import export.pipeline
from export import precisions
from export.charge import find_charge_thresholds
from export.families.generator_module import GeneratorModule
from export.families.resnet import FAMILY, UpsamplingBlock
from export.parity import ReferenceImages, compute_references, measure_float64_difference
from export.pipeline import ExportOptions, export_checkpoint
from export.precisions import BuiltGraph, build_graph
from export.torch_graph import export_to_onnx
from tests.checkpoints import register_family, save
from tests.made_once import make_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from pxdbg_runtime.model.card import Precision, Target
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = [
    "N_IMAGES",
    "THRESHOLDS",
    "Tiny",
    "TinyConvNet",
    "TinyResNet",
    "build_lively_model",
    "build_once",
    "few_images",
    "tiny_of",
]

N_IMAGES: Final = 4
THRESHOLDS: Final = find_charge_thresholds()


class TinyConvNet(GeneratorModule):
    """As the ConvNet, with a hundredth of its channels."""

    channels: ClassVar[tuple[int, ...]] = (6, 6, 5, 4, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(96, self.channels[0] * 8 * 24)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(self.channels):
            layers += [
                nn.Conv2d(n_in, n_out, kernel_size=5, padding=2),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.Upsample(scale_factor=2, mode="nearest"),
            ]
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(self.channels[-1], 1, kernel_size=5, padding=2)

    def full_image(self, latent: Tensor) -> Tensor:
        seed = self.fc(latent).view(-1, self.channels[0], 8, 24)
        return torch.tanh(self.last(self.features(seed)))


class TinyResNet(GeneratorModule):
    """As the ResNet, with a fiftieth of its channels."""

    channels: ClassVar[tuple[int, ...]] = (6, 5, 4, 4, 3, 3)

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(96, self.channels[0] * 8 * 24)
        self.blocks = nn.Sequential(*(UpsamplingBlock(n_in, n_out) for n_in, n_out in pairwise(self.channels)))
        self.norm = nn.BatchNorm2d(self.channels[-1])
        self.last = nn.Conv2d(self.channels[-1], 1, kernel_size=3, padding=1)

    def full_image(self, latent: Tensor) -> Tensor:
        seed = self.fc(latent).view(-1, self.channels[0], 8, 24)
        return torch.tanh(self.last(functional.relu(self.norm(self.blocks(seed)))))


def build_lively_model(kind: type[TinyConvNet | TinyResNet], seed: int) -> TinyConvNet | TinyResNet:
    """Make a model whose batch norms have seen latents, and a tenth of whose pixels have hits."""
    with torch.random.fork_rng(), torch.no_grad():  # tensors of inference mode cost the exporter a second attempt
        torch.manual_seed(seed)
        model = kind().train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model(torch.randn(8, 96))
        values = torch.arctanh(model.eval().full_image(torch.randn(4, 96)).double().clamp(-0.999999, 0.999999))
        factor = 0.5 / float(values.std())
        model.last.weight *= factor
        assert model.last.bias is not None
        model.last.bias *= factor
        model.last.bias += -1.6 - factor * float(values.mean())
    return model


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiny:
    """A small model, its checkpoint, the graph that PyTorch's exporter makes of it, and the images of both."""

    model: TinyConvNet | TinyResNet
    checkpoint: Path
    plain: onnx.ModelProto
    references: ReferenceImages
    plain_difference: float

    def use_known(self, patched: pytest.MonkeyPatch) -> None:
        """Let exports use the known graph and images instead of computing them."""
        patched.setattr(export.pipeline, "export_to_onnx", lambda *_: self.plain)
        patched.setattr(export.pipeline, "compute_references", lambda *_: self.references)
        patched.setattr(export.pipeline, "measure_float64_difference", self._measure_difference)

    def _measure_difference(self, references: ReferenceImages, graph: onnx.ModelProto) -> float:
        is_known = references is self.references and graph is self.plain
        return self.plain_difference if is_known else measure_float64_difference(references, graph)

    def export(
        self,
        folder: Path,
        precision: Precision = "float32",
        target: Target = "cpu",
        *,
        log: Callable[[str], None] = lambda _: None,
        **options: Any,  # noqa: ANN401
    ) -> GraphFile:
        """Run the export on the checkpoint, with the graph and images of PyTorch computed before."""
        with pytest.MonkeyPatch.context() as patched:
            few_images(patched)
            register_family(patched, "tiny", type(self.model))
            self.use_known(patched)
            return export_checkpoint(
                self.checkpoint,
                "tiny",
                folder,
                ExportOptions(precision=precision, target=target, **options),
                log=log,
            )


def few_images(patched: pytest.MonkeyPatch) -> None:
    """Calibrate on few images, and measure on few."""
    patched.setattr(precisions, "_FIDELITY_IMAGES", N_IMAGES)
    patched.setattr(precisions, "_CALIBRATION_IMAGES", N_IMAGES)
    patched.setattr(precisions, "_MATCHED_IMAGES", N_IMAGES)


@functools.cache
def build_once(tiny: Tiny, precision: Precision, target: Target) -> BuiltGraph:
    """Make a graph of a precision, once; do not change it."""
    with pytest.MonkeyPatch.context() as patched:
        few_images(patched)
        return build_graph(tiny.plain, FAMILY, precision, target, thresholds=THRESHOLDS, min_charge=1)


@functools.cache
def tiny_of(kind: type[TinyConvNet | TinyResNet], seed: int) -> Tiny:
    """Make a small model with its graph, once in a run of the tests."""

    def make(folder: Path) -> Tiny:
        model = build_lively_model(kind, seed)
        plain, references = export_to_onnx(model, FAMILY), compute_references(model, FAMILY)
        return Tiny(
            model=model,
            checkpoint=save(model.state_dict(), folder / "tiny.pt"),
            plain=plain,
            references=references,
            plain_difference=measure_float64_difference(references, plain),
        )

    return make_once(f"{kind.__name__}-{seed}", make)
