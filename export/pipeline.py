"""The whole road: a checkpoint becomes a graph file with its card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
from typing import TYPE_CHECKING, Final

from export.charge import find_charge_thresholds
from export.checkpoint import load_checkpoint
from export.errors import CheckpointError, GraphError
from export.families import LATENT_SIZE
from export.fidelity import require_fidelity
from export.graph import append_charges
from export.known_answers import build_known_answers
from export.model_names import check_name, default_name
from export.original import ORIGINAL_MIN_CHARGE
from export.parity import compute_references, measure_parity, require_parity
from export.precisions import BuiltGraph, build_graph, print_pass_costs
from export.torch_graph import INPUT_NAME, OPSET, OUTPUT_NAME, to_onnx
from pxdbg_runtime import __version__
from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.errors import ArgumentValueError, OutputError
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.inference.verification import check_known_answers, describe_failure
from pxdbg_runtime.model.card import N_THRESHOLDS, Draw, GraphInput, ModelCard, Nature, PackageVersion, Parity
from pxdbg_runtime.model.graph_file import GraphFile, append_card, read_graph_file
from pxdbg_runtime.regular_file import open_regular
from pxdbg_runtime.sensors import N_SENSORS, SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from export.families import GeneratorModule
    from export.graph import Target
    from export.int8 import WeightBits
    from pxdbg_runtime.model.card import Fidelity, Precision

__all__ = ["export_checkpoint"]

_PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")


def export_checkpoint(
    checkpoint: Path,
    family: str,
    output: Path,
    *,
    name: str | None = None,
    wrapper: str | None = None,
    nature: Nature = "checkpoint",
    provenance: str | None = None,
    precision: Precision = "float32",
    target: Target = "cpu",
    rewrite: bool = True,
    weight_bits: WeightBits = 7,
    min_charge: int = ORIGINAL_MIN_CHARGE,
    accept_beyond_bounds: bool = False,
    explain: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> GraphFile:
    """Export a checkpoint to ``OUTPUT/NAME-PRECISION.onnx``, for CUDA to ``OUTPUT/NAME-PRECISION-cuda.onnx``.

    Parameters
    ----------
    checkpoint : Path
        A file of ``torch.save`` or safetensors, see `export.checkpoint`.
    family : {"convnet", "resnet"}
    output : Path
        Folder; made if it is not there.
    name : str, optional
        Name of the model; one made of that of the checkpoint file if None.
    wrapper : str, optional
        Which of several state dicts in the checkpoint to take: its path, such as ``g_ema`` or ``ema.shadow``.
    nature : {"checkpoint", "stand-in", "demonstration"}
        What the weights are worth.
    provenance : str, optional
        Where they come from, in words.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        The execution provider whose form of the graph is chosen; int8 is for the CPU. A graph for CUDA gives charges.
    rewrite : bool
        False leaves the graph as PyTorch's exporter gave it, for comparisons; float32 for the CPU alone.
    weight_bits : {7, 8}
        Of an int8 graph: with 7 every CPU gives the same digits, with 8 those with VNNI alone.
    min_charge : int
        Smallest charge of a hit for the card, ADU: 1 as in the original, 7 where the read-out threshold is to hold.
    accept_beyond_bounds : bool
        Write a float16 or int8 graph even if its digits are too far from float32's.
    explain : bool
        Tell what each pass does and what it saves.
    log : callable, optional
        Called with a line as each step is done.

    Returns
    -------
    GraphFile
        What was written, read back and checked.

    Raises
    ------
    CheckpointError, GraphError, ParityError, FidelityError, ArgumentValueError, OutputError
        With nothing written.
    """
    if not rewrite and (precision, target) != ("float32", "cpu"):
        message = "rewrite=False is for float32 on the CPU: other precisions and targets are made by rewriting."
        raise ArgumentValueError("rewrite", message)
    if (precision, target) == ("int8", "cuda"):
        message = "int8 graphs are made of operators that ONNX Runtime has for the CPU alone: use --target cpu."
        raise ArgumentValueError("target", message)
    min_charge = check_integer("min_charge", min_charge, 1, N_THRESHOLDS, unit="ADU")
    is_own_name = name is not None
    name = default_name(checkpoint, family) if name is None else check_name(name)
    suffix = "" if target == "cpu" else f"-{target}"
    path = output / f"{name}-{precision}{suffix}.onnx"
    if output.is_dir():  # else it is made in the end
        check_target(path, room_bytes=100_000)
    model, checkpoint_sha256 = _load_and_hash(checkpoint, family, wrapper, log)
    if not is_own_name and name != checkpoint.stem:
        log(f"named the model {name}, after its file; --name gives it another name")
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    log(f"read {checkpoint}: {family}, {n_parameters:,} parameters")
    plain = to_onnx(model)
    log(f"exported to ONNX, opset {OPSET}, {len(plain.graph.node)} nodes")
    thresholds = find_charge_thresholds()
    if explain:
        print_pass_costs(plain, target, log)
    if rewrite:
        graph = build_graph(
            plain, precision, target, thresholds=thresholds, min_charge=min_charge, weight_bits=weight_bits, log=log
        )
    else:
        graph = BuiltGraph(model=plain, passes=(), thresholds=thresholds, fidelity=None)
    references = compute_references(model, LATENT_SIZE)
    parity = measure_parity(references, graph.model, graph.thresholds, min_charge)
    log(_format_parity(parity))
    if graph.fidelity is None or not math.isfinite(parity.max_abs_difference):
        require_parity(parity)
    else:
        log(_said_of_fidelity(graph.fidelity))
        if not accept_beyond_bounds:
            require_fidelity(graph.fidelity, precision)
    gives_charges = target == "cuda" and rewrite
    final = append_charges(graph.model, thresholds) if gives_charges else graph.model
    card = ModelCard(
        name=name,
        family=family,
        nature=nature,
        provenance=provenance or f"Weights of the checkpoint {checkpoint.name}.",
        latent_size=LATENT_SIZE,
        draws=(Draw(name=INPUT_NAME, shape=(N_SENSORS, LATENT_SIZE)),),
        inputs=(GraphInput(name=INPUT_NAME, role="latent", draw=INPUT_NAME),),
        output=OUTPUT_NAME,
        output_kind="charges" if gives_charges else "values",
        sensors=tuple(sensor.vxd_id for sensor in SENSORS),
        precision=precision,
        target=target,
        weight_bits=weight_bits if precision == "int8" else None,
        passes=graph.passes,
        opset=OPSET,
        thresholds=tuple(graph.thresholds.tolist()),
        cut=None,
        min_charge=min_charge,
        checkpoint_sha256=checkpoint_sha256,
        made_with=_made_with(),
        parity=parity,
        fidelity=graph.fidelity,
        known_answers=build_known_answers(
            references, final, graph.thresholds, precision, "charges" if gives_charges else "values"
        ),
    )
    return _written(path, final.SerializeToString(), card)


def _load_and_hash(
    checkpoint: Path, family: str, wrapper: str | None, log: Callable[[str], None]
) -> tuple[GeneratorModule, str]:
    """Read a checkpoint's model and the SHA-256 of its file; refuse a file that is replaced or written to meanwhile."""
    before = _hash_file(checkpoint)
    model = load_checkpoint(checkpoint, family, wrapper=wrapper, log=log)
    after = _hash_file(checkpoint)
    if before is None or after != before:
        raise CheckpointError(checkpoint, "changed while it was read: export it again when nothing writes to it.")
    return model, before


def _hash_file(path: Path) -> str | None:
    """Compute the SHA-256 of a file; None if it cannot be read, of which `load_checkpoint` says more."""
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def _written(target: Path, model: bytes, card: ModelCard) -> GraphFile:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder {target.parent} cannot be made: {error.strerror or error}."
        raise OutputError(target.parent, message) from None
    with atomic_write(target) as partial:
        partial.write_bytes(append_card(model, card))
        _require_known_answers(read_graph_file(partial))
    return read_graph_file(target)


def _require_known_answers(graph: GraphFile) -> None:
    """Check that the runtime accepts the graph here: what it refuses must not be written."""
    session, answers = ImageSession(graph, provider="cpu"), graph.card.known_answers
    if answers is not None and not (verdict := check_known_answers(session, answers)).passed:
        message = f"The graph was not written: {describe_failure(session, answers, verdict)}"
        raise GraphError(message)


def _made_with() -> tuple[PackageVersion, ...]:
    versions = ((package, importlib.metadata.version(package)) for package in _PACKAGES)
    return (
        PackageVersion(package="pxdbg-runtime", version=__version__),
        *(PackageVersion(package=package, version=version) for package, version in versions),
    )


def _said_of_fidelity(fidelity: Fidelity) -> str:
    return (
        f"digits against float32, {fidelity.images} images: W1 of the charge spectrum {fidelity.charge_w1_adu:.3f} ADU, "
        f"occupancy {100 * (fidelity.occupancy_ratio - 1):+.2f} %, identical digits {100 * fidelity.identical_digits:.1f} %"
    )


def _format_parity(parity: Parity) -> str:
    return (
        f"ONNX Runtime against PyTorch, {parity.images} images: largest difference {parity.max_abs_difference:.2e}, from float64 "
        f"{parity.max_float64_difference:.2e} (PyTorch's own {parity.pytorch_float64_difference:.2e}), equal charges of hits "
        f"{100 * parity.equal_charges:.3f} %"
    )
