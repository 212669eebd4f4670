"""The whole road: a checkpoint becomes a graph file with its card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from typing import TYPE_CHECKING, Final

from export.charge import charge_thresholds
from export.checkpoint import load_checkpoint
from export.graph import INPUT_NAME, OPSET, OUTPUT_NAME, to_onnx
from export.models import LATENT_SIZE
from export.parity import measured_parity, require_parity
from pxdbg_runtime import __version__
from pxdbg_runtime.atomic_file import written_whole
from pxdbg_runtime.card import Draw, GraphInput, MadeWith, ModelCard, Nature, Parity
from pxdbg_runtime.errors import ArgumentValueError, OutputError
from pxdbg_runtime.graph_file import GraphFile, read_graph_file, sealed
from pxdbg_runtime.sensors import N_SENSORS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["export_checkpoint"]

_PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export_checkpoint(
    checkpoint: Path,
    family: str,
    output: Path,
    *,
    name: str | None = None,
    wrapper: str | None = None,
    nature: Nature = "checkpoint",
    provenance: str | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> GraphFile:
    """Export a checkpoint to ``OUTPUT/NAME-float32.onnx``.

    Parameters
    ----------
    checkpoint : Path
        ``.pt``, ``.pth`` or ``.safetensors``.
    family : {"convnet", "resnet"}
    output : Path
        Folder; made if it is not there.
    name : str, optional
        Name of the model; that of the checkpoint file if None.
    wrapper : str, optional
        Which of several state dicts in the checkpoint to take.
    nature : {"checkpoint", "stand-in", "demonstration"}
        What the weights are worth.
    provenance : str, optional
        Where they come from, in words.
    tell : callable, optional
        Called with a line as each step is done.

    Returns
    -------
    GraphFile
        What was written, read back and checked.

    Raises
    ------
    CheckpointError, GraphError, ParityError, ArgumentValueError, OutputError
        With nothing written.
    """
    name = checkpoint.stem if name is None else name
    if not _NAME.fullmatch(name):
        message = f"--name must hold letters, digits, '.', '_' and '-' alone, but is {name!r}."
        raise ArgumentValueError("name", message)
    model = load_checkpoint(checkpoint, family, wrapper=wrapper)
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    tell(f"read {checkpoint}: {family}, {n_parameters:,} parameters")
    graph = to_onnx(model)
    tell(f"exported to ONNX, opset {OPSET}, {len(graph.graph.node)} nodes")
    parity = measured_parity(model, graph)
    tell(_said(parity))
    require_parity(parity)
    checkpoint_sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    card = ModelCard(
        name=name,
        family=family,
        nature=nature,
        provenance=provenance or f"Weights of the checkpoint {checkpoint.name}.",
        latent_size=LATENT_SIZE,
        draws=(Draw(name=INPUT_NAME, shape=(N_SENSORS, LATENT_SIZE)),),
        inputs=(GraphInput(name=INPUT_NAME, role="latent", draw=INPUT_NAME),),
        output=OUTPUT_NAME,
        sensors=tuple(sensor.vxd_id for sensor in SENSORS),
        precision="float32",
        opset=OPSET,
        thresholds=tuple(charge_thresholds().tolist()),
        cut=None,
        min_charge=1,
        checkpoint_sha256=checkpoint_sha256,
        made_with=_made_with(),
        parity=parity,
    )
    return _written(output / f"{name}-{card.precision}.onnx", graph.SerializeToString(), card)


def _written(target: Path, model: bytes, card: ModelCard) -> GraphFile:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder {target.parent} cannot be made: {error.strerror or error}."
        raise OutputError(target.parent, message) from None
    with written_whole(target) as partial:
        partial.write_bytes(sealed(model, card))
        read_graph_file(partial)
    return read_graph_file(target)


def _made_with() -> tuple[MadeWith, ...]:
    versions = ((package, importlib.metadata.version(package)) for package in _PACKAGES)
    return (
        MadeWith(package="pxdbg-runtime", version=__version__),
        *(MadeWith(package=package, version=version) for package, version in versions),
    )


def _said(parity: Parity) -> str:
    return (
        f"ONNX Runtime against PyTorch, {parity.images} images of fresh latents: largest difference "
        f"{parity.max_abs_difference:.2e}, equal charges {100 * parity.equal_charges:.5f} %"
    )
