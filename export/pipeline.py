"""The whole export: load a checkpoint, build its graph, verify it, write it with its card."""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from export.charge import cut_thresholds, find_charge_thresholds
from export.checkpoint import TOP, load_with_path
from export.checkpoint.nature_mark import MARKED_PROVENANCES, read_mark
from export.errors import CheckpointError, GraphError
from export.families import FAMILIES, load_family
from export.fidelity import check_fidelity, format_fidelity
from export.graph import INT8_PASSES, append_charges, list_passes, store_compactly
from export.model_names import derive_name
from export.options import ExportOptions, check_choice
from export.parity import (
    check_function,
    check_parity,
    compute_references,
    format_parity,
    measure_exact_difference,
    measure_float64_difference,
    measure_parity,
)
from export.precisions import BuiltGraph, build_graph, print_pass_costs
from export.reference_outputs import build_known_answers, check_charges
from export.torch_graph import OPSET, OUTPUT_NAME, export_to_onnx
from pxdbg_runtime import __version__
from pxdbg_runtime.command_line.digit_output import check_overwrite
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from pxdbg_runtime.formats.output_path import create_folder
from pxdbg_runtime.inference.providers import import_onnxruntime
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.inference.verification import check_known_answers, describe_failure
from pxdbg_runtime.model.card import ModelCard, PackageVersion
from pxdbg_runtime.model.graph_file import GraphFile, append_card, read_graph_file
from pxdbg_runtime.regular_file import open_regular
from pxdbg_runtime.sensors import SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx

    from export.families import Family
    from export.families.generator_module import GeneratorModule
    from export.graph import Pass
    from export.parity import ReferenceImages
    from pxdbg_runtime.model.card import OutputKind, Parity

__all__ = ["ExportOptions", "export_checkpoint", "prepare_folder"]

_PACKAGES: Final = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime", "numpy")
_MIN_FREE_BYTES: Final = 100_000


def export_checkpoint(
    checkpoint: Path,
    family: str,
    output: Path,
    options: ExportOptions | None = None,
    *,
    log: Callable[[str], None] = lambda _: None,
) -> GraphFile:
    """Export a checkpoint to ``OUTPUT/NAME-PRECISION.onnx``, for CUDA to ``OUTPUT/NAME-PRECISION-cuda.onnx``.

    Parameters
    ----------
    checkpoint : Path
        A file of ``torch.save`` or safetensors, see `export.checkpoint`.
    family : str
        Architecture, one of `export.families.FAMILIES`.
    output : Path
        Folder, created if it does not exist.
    options : ExportOptions, optional
    log : callable, optional
        Called with a line after each step.

    Returns
    -------
    GraphFile
        The written file, read back and checked.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If there is no such family.
    CheckpointError, GraphError, ParityError, FidelityError, OutputError
        Nothing is written.
    """
    options = options or ExportOptions()
    check_choice("family", family, tuple(FAMILIES))
    name = options.name or derive_name(checkpoint, family)
    suffix = "" if options.target == "cpu" else f"-{options.target}"
    path = output / f"{name}-{options.precision}{suffix}.onnx"
    with prepare_folder(output):
        check_target(path, free_bytes=_MIN_FREE_BYTES)
        check_overwrite(path, overwrite=options.overwrite)
        loaded = _load(checkpoint, family, options, log)
        if options.nature == "checkpoint" and (marked := read_mark(checkpoint)) is not None:
            provenance = options.provenance or MARKED_PROVENANCES[marked]
            options = replace(options, nature=marked, provenance=provenance)
            log(f"the file is marked as a {marked}: the card says {marked}, not checkpoint")
        if options.name is None and name != checkpoint.stem:
            log(f"named the model {name}, after its file; --name gives it another name")
        n_parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        log(f"read {checkpoint}: {family}, {n_parameters:,} parameters")
        references = compute_references(loaded.model, loaded.family)
        _check_finite(checkpoint, references)
        plain = export_to_onnx(loaded.model.fold(), loaded.family)
        log(f"exported to ONNX, opset {OPSET}, {len(plain.graph.node)} nodes")
        graph = _build(plain, loaded, references, options, log)
        parity = _verify(graph, plain, references, loaded.min_charge, options, log)
        card, final = _describe(name, graph, loaded, references, parity, options)
        # Passes and other runtimes, which an unchanged graph is for, do not know compact weights.
        return _write(path, (store_compactly(final) if options.rewrite else final).SerializeToString(), card)


@contextmanager
def prepare_folder(folder: Path) -> Iterator[None]:
    """Create a folder, and those above it; remove those that are new and empty if the block fails.

    Raises
    ------
    OutputError
        If it cannot be created.
    """
    new = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        create_folder(folder)
        yield
    except BaseException:
        for each in new:
            with suppress(OSError):
                each.rmdir()
        raise


@dataclass(frozen=True, kw_only=True)
class _LoadedModel:
    """A checkpoint's model."""

    checkpoint: Path
    state_key: str
    """Path of its state dict in the checkpoint."""
    sha256: str
    family: Family
    model: GeneratorModule
    min_charge: int


def _load(checkpoint: Path, name: str, options: ExportOptions, log: Callable[[str], None]) -> _LoadedModel:
    """Load a checkpoint, and refuse a file that changes meanwhile."""
    before = _hash_file(checkpoint)
    model, state_key = load_with_path(checkpoint, name, state_key=options.state_key, log=log)
    if before is None or _hash_file(checkpoint) != before:
        raise CheckpointError(checkpoint, "changed while it was read: export it again when nothing writes to it.")
    family = load_family(name).find_variant(model)
    min_charge = family.min_charge if options.min_charge is None else int(options.min_charge)
    return _LoadedModel(
        checkpoint=checkpoint,
        state_key=state_key,
        sha256=before,
        family=family,
        model=model,
        min_charge=min_charge,
    )


def _hash_file(path: Path) -> str | None:
    """Compute the SHA-256 of a file; None if it cannot be read, which `load_with_path` explains."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _check_finite(checkpoint: Path, references: ReferenceImages) -> None:
    """Refuse a model whose own images no graph could be compared with; each of its weights may be finite."""
    for where, images in (
        ("float64", references.exact),
        ("float32", references.float32),
        ("float32, with norms folded into weights", references.folded),
    ):
        if not np.isfinite(images).all():
            message = (
                f"gives images that are not finite in PyTorch itself, in {where}: export another checkpoint of the "
                "same training."
            )
            raise CheckpointError(checkpoint, message)


def _build(
    plain: onnx.ModelProto,
    loaded: _LoadedModel,
    references: ReferenceImages,
    options: ExportOptions,
    log: Callable[[str], None],
) -> BuiltGraph:
    """Build the graph of the wanted precision and target."""
    thresholds = find_charge_thresholds()
    if options.explain:
        print_pass_costs(plain, _list_passes(options), log)
    if not options.rewrite:
        return BuiltGraph(model=plain, passes=(), thresholds=thresholds, cut=loaded.family.cut, fidelity=None)
    return build_graph(
        plain,
        loaded.family,
        options.precision,
        options.target,
        thresholds=thresholds,
        min_charge=loaded.min_charge,
        weight_bits=options.weight_bits,
        check_exact=lambda exact: _check_float32(
            exact,
            plain,
            references,
            measure_parity(references, exact, thresholds, loaded.min_charge, loaded.family.cut),
            log,
        ),
        log=log,
    )


def _list_passes(options: ExportOptions) -> tuple[Pass, ...]:
    """List the passes over the graph, before its conversion to another precision."""
    if not options.rewrite:
        return ()
    return INT8_PASSES if options.precision == "int8" else list_passes(options.target, options.precision)


def _verify(
    graph: BuiltGraph,
    plain: onnx.ModelProto,
    references: ReferenceImages,
    min_charge: int,
    options: ExportOptions,
    log: Callable[[str], None],
) -> Parity:
    """Compare the graph with PyTorch and with float32; refuse it beyond the bounds."""
    parity = measure_parity(references, graph.model, graph.thresholds, min_charge, graph.cut)
    log(format_parity(parity))
    if graph.fidelity is None:
        _check_float32(graph.model, plain, references, parity, log)
    elif not math.isfinite(parity.max_abs_difference):
        check_parity(parity)
    else:
        log(format_fidelity(graph.fidelity))
        if not options.accept_beyond_bounds:
            check_fidelity(graph.fidelity, options.precision, min_charge)
    return parity


def _check_float32(
    graph: onnx.ModelProto,
    plain: onnx.ModelProto,
    references: ReferenceImages,
    parity: Parity,
    log: Callable[[str], None],
) -> None:
    """Check that a float32 graph computes its model, and that ONNX Runtime computes the graph precisely."""
    plain_difference = measure_float64_difference(references, plain)
    check_parity(parity, plain_difference)
    exact_difference = measure_exact_difference(references, graph)
    log(
        f"differences from float64: {exact_difference:.2e} by the rounding of weights, {plain_difference:.2e} of the "
        "unchanged graph in ONNX Runtime"
    )
    check_function(exact_difference, parity)


def _describe(
    name: str,
    graph: BuiltGraph,
    loaded: _LoadedModel,
    references: ReferenceImages,
    parity: Parity,
    options: ExportOptions,
) -> tuple[ModelCard, onnx.ModelProto]:
    """Build the card, and the graph with the output that the card declares."""
    output_kind: OutputKind = "charges" if options.target == "cuda" else "values"
    table = cut_thresholds(graph.thresholds, graph.cut)
    final = graph.model
    if output_kind == "charges":
        final = append_charges(graph.model, table)
        check_charges(references, graph.model, final, table)
    at = "" if loaded.state_key == TOP else f" at {loaded.state_key}"
    provenance = options.provenance or f"Weights{at} of the checkpoint {loaded.checkpoint.name}."
    card = ModelCard(
        name=name,
        family=loaded.family.name,
        nature=options.nature,
        provenance=provenance.encode(errors="backslashreplace").decode(),  # names of files and keys need not be UTF-8
        latent_size=loaded.family.latent_size,
        draws=loaded.family.draws,
        inputs=loaded.family.inputs,
        output=OUTPUT_NAME,
        output_kind=output_kind,
        sensors=tuple(sensor.vxd_id for sensor in SENSORS),
        precision=options.precision,
        target=options.target,
        weight_bits=options.weight_bits if options.precision == "int8" else None,
        passes=graph.passes,
        opset=OPSET,
        thresholds=tuple(graph.thresholds.tolist()),
        cut=graph.cut,
        min_charge=loaded.min_charge,
        checkpoint_sha256=loaded.sha256,
        made_with=(
            PackageVersion(package="pxdbg-runtime", version=__version__),
            *(PackageVersion(package=each, version=_find_version(each)) for each in _PACKAGES),
        ),
        parity=parity,
        fidelity=graph.fidelity,
        known_answers=build_known_answers(references, final, table, options.precision, output_kind),
    )
    return card, final


def _find_version(package: str) -> str:
    """Find the version of a package; ONNX Runtime's wheel may have another name, such as onnxruntime-gpu."""
    return str(import_onnxruntime().__version__) if package == "onnxruntime" else importlib.metadata.version(package)


def _write(path: Path, model: bytes, card: ModelCard) -> GraphFile:
    """Write the file, and read it back."""
    create_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(append_card(model, card))
        _check_in_runtime(read_graph_file(partial))
    return read_graph_file(path)


def _check_in_runtime(graph: GraphFile) -> None:
    """Check that the runtime on this machine accepts the graph and computes its known answers."""
    session, answers = ImageSession(graph, provider="cpu"), graph.card.known_answers
    if answers is not None and not (verdict := check_known_answers(session, answers)).passed:
        message = f"The graph was not written: {describe_failure(session, answers, verdict)}"
        raise GraphError(message)
