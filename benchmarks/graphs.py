"""Weights and graphs of the benchmarks: made once, kept in a folder, found again by what they were made of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.environment import check_installed
from pxdbg_runtime.errors import OutputError
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.model.graph_file import read_graph_file
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pxdbg_runtime.model.card import Precision, Target
    from pxdbg_runtime.model.graph_file import GraphFile

__all__ = ["CPU_PRECISIONS", "CUDA_PRECISIONS", "Workspace"]

CPU_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "int8")
CUDA_PRECISIONS: Final[tuple[Precision, ...]] = ("float32", "float16")
_SEED_OF_WEIGHTS: Final = 3
_EXPORT: Final = Path(__file__).resolve().parent.parent / "export"
_KEY_LENGTH: Final = 12
_PROVENANCE: Final = "Seeded random weights of the true architecture, made for benchmarks: without any physics."


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The folder of the benchmarks' weights and graphs.

    Attributes
    ----------
    folder : Path
        Made when it is first needed.
    checkpoints : mapping of str to Path
        Given checkpoints by family; other families get seeded random weights.
    log : callable
        Called with a line as something is made.
    """

    folder: Path
    checkpoints: Mapping[str, Path]
    log: Callable[[str], None]

    def checkpoint(self, family: str) -> Path:
        """Find the checkpoint of a family, and make one of random weights if none was given.

        Raises
        ------
        MissingPackageError
            If it must be made and PyTorch is not installed.
        OutputError
            If it cannot be written.
        """
        if family in self.checkpoints:
            return self.checkpoints[family]
        path = self.folder / __version__ / f"{family}-demonstration-{_SEED_OF_WEIGHTS}.safetensors"
        if not path.exists():
            check_installed("torch")
            from safetensors.torch import save

            from export.random_weights import build_random_model

            self.log(f"{family}: making random weights, half a minute")
            _make_folder(path.parent)
            state = build_random_model(family, _SEED_OF_WEIGHTS).state_dict()
            with atomic_write(path) as partial:
                partial.write_bytes(save(state))
        return path

    def graph(
        self, family: str, precision: Precision = "float32", *, target: Target = "cpu", rewrite: bool = True
    ) -> GraphFile:
        """Find a graph of a family's checkpoint, and export it if it is not there.

        Parameters
        ----------
        family : {"convnet", "resnet"}
        precision : {"float32", "float16", "int8"}
        target : {"cpu", "cuda"}
        rewrite : bool
            False for the plain export.

        Raises
        ------
        PxdbgError
            Whatever the export finds fault with.
        """
        checkpoint = self.checkpoint(family)
        folder = self.folder / __version__ / _key(checkpoint)
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
                # What the images are worth is the export's business; how long they take does not depend on it.
                accept_beyond_bounds=True,
            ),
            log=self.log,
        )

    def remarks(self, families: Sequence[str]) -> tuple[str, ...]:
        """Say for each family what its weights are."""
        return tuple(
            f"{family}: weights of {self.checkpoints[family].name}"
            if family in self.checkpoints
            else f"{family}: seeded random demonstration weights (seed {_SEED_OF_WEIGHTS}), without any physics"
            for family in families
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder {folder} cannot be made: {error.strerror or error}."
        raise OutputError(folder, message) from None


def _key(checkpoint: Path) -> str:
    """Name the folder of a checkpoint's graphs; another checkpoint, or a change in the export, gives another."""
    digest = hashlib.sha256(checkpoint.read_bytes())
    for source in sorted(_EXPORT.rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:_KEY_LENGTH]
