"""Weights and graphs of the benchmarks: created once and kept in a folder, under a digest of what they depend on."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.environment import check_installed, find_versions
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.formats.output_path import create_folder
from pxdbg_runtime.model.card import Precision, Target
from pxdbg_runtime.model.graph_file import GraphFile, read_graph_file
from pxdbg_runtime.version import __version__

CPU_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
CUDA_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "float16")
_SEED_OF_WEIGHTS: Final = 3
_CHECKOUT: Final = Path(__file__).resolve().parent.parent
_SOURCES: Final = (_CHECKOUT / "export", _CHECKOUT / "pxdbg_runtime")
_PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir", "numpy")
"""What the export makes weights and graphs with, beside ONNX Runtime."""
_KEY_LENGTH: Final = 12
_PROVENANCE: Final = "Seeded random weights of the true architecture, for benchmarks: without any physics."


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folder of weights and graphs; families that are not in `checkpoints` get seeded random weights."""

    folder: Path
    checkpoints: Mapping[str, Path]
    log: Callable[[str], None]

    def find_checkpoint(self, family: str) -> Path:
        """Return the checkpoint of a family; create one with random weights, with PyTorch, if none was given."""
        if family in self.checkpoints:
            return self.checkpoints[family]
        path = self.folder / __version__ / _digest_inputs() / f"{family}-demonstration-{_SEED_OF_WEIGHTS}.safetensors"
        if not path.exists():
            check_installed("torch")
            from safetensors.torch import save

            from export.random_weights import build_random_model

            self.log(f"{family}: making random weights, about a minute")
            create_folder(path.parent)
            state = build_random_model(family, _SEED_OF_WEIGHTS).state_dict()
            with atomic_write(path) as partial:
                partial.write_bytes(save(state))
        return path

    def find_graph(
        self, family: str, precision: Precision = "float32", *, target: Target = "cpu", rewrite: bool = True
    ) -> GraphFile:
        """Return a graph of a family; export it if it does not exist, without any pass if `rewrite` is False."""
        checkpoint = self.find_checkpoint(family)
        folder = self.folder / __version__ / _digest_inputs(checkpoint.read_bytes())
        name = family if rewrite else f"{family}-plain"
        path = folder / f"{name}-{precision}{'-cuda' if target == 'cuda' else ''}.onnx"
        if path.exists():
            return read_graph_file(path)
        check_installed("torch")
        from export.pipeline import ExportOptions, export_checkpoint

        self.log(f"{family}: exporting {path.name}{', some minutes' if precision == 'int8' else ''}")
        is_given = family in self.checkpoints
        return export_checkpoint(
            checkpoint,
            family,
            folder,
            ExportOptions(
                name=name,
                nature="checkpoint" if is_given else "demonstration",
                provenance=None if is_given else _PROVENANCE,
                precision=precision,
                target=target,
                rewrite=rewrite,
                accept_beyond_bounds=precision != "float32",  # the time does not depend on the quality of the images
            ),
            log=self.log,
        )

    def describe_weights(self, families: Sequence[str]) -> tuple[str, ...]:
        """Describe the weights of each family in a line."""
        return tuple(
            f"{family}: weights of {self.checkpoints[family].name}"
            if family in self.checkpoints
            else f"{family}: seeded random demonstration weights (seed {_SEED_OF_WEIGHTS}), without any physics"
            for family in families
        )


def _digest_inputs(checkpoint: bytes = b"") -> str:
    """Compute a digest of what weights and graphs depend on: the export, and a checkpoint."""
    return hashlib.sha256(_digest_export() + checkpoint).hexdigest()[:_KEY_LENGTH]


@functools.cache
def _digest_export() -> bytes:
    """Compute a digest of the sources and packages, once: a process runs the sources that it has imported.

    The export draws latents, digitises and checks graphs with the runtime.
    """
    digest = hashlib.sha256()
    for source in (each for folder in _SOURCES for each in sorted(folder.rglob("*.py"))):
        digest.update(source.read_bytes())
    digest.update(repr(find_versions(_PACKAGES)).encode())
    return digest.digest()
