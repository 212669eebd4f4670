"""The graphs that come with the package: a manifest of names, sizes and SHA-256, checked before use."""

from __future__ import annotations

import functools
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

from pxdbg_runtime.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    GraphFileError,
    JsonFieldError,
    ManifestError,
    ModelNotFoundError,
)
from pxdbg_runtime.json_fields import Fields, NumberRange
from pxdbg_runtime.model.card import FULL_WEIGHT_BITS, ModelCard, Precision, Target
from pxdbg_runtime.model.graph_file import GraphFile, read_graph_file

__all__ = [
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA",
    "PRECISIONS",
    "BuiltinGraph",
    "find_artifacts_folder",
    "find_graph",
    "format_manifest",
    "is_best_for_cpu",
    "is_path",
    "read_manifest",
]

MANIFEST_NAME: Final = "manifest.json"
MANIFEST_SCHEMA: Final = 1
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True, kw_only=True)
class BuiltinGraph:
    """One line of the manifest.

    Attributes
    ----------
    name : str
        Name of the model.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        The execution provider that the graph is for.
    file : str
        File name beside the manifest.
    size : int
        Bytes.
    sha256 : str
        Of the file.
    """

    name: str
    precision: Precision
    target: Target
    file: str
    size: int
    sha256: str


def find_artifacts_folder() -> Path:
    """Find the folder of the shipped graphs: in the package once installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "artifacts"
    return installed if installed.is_dir() else package.parent / "artifacts"


def format_manifest(graphs: tuple[BuiltinGraph, ...]) -> str:
    """Write a manifest as JSON."""
    content = {"schema": MANIFEST_SCHEMA, "graphs": [asdict(graph) for graph in graphs]}
    return json.dumps(content, indent=2) + "\n"


@functools.cache
def read_manifest(folder: Path | None = None) -> tuple[BuiltinGraph, ...]:
    """Read the manifest.

    Raises
    ------
    ManifestError
        If it is missing or not valid.
    """
    path = (folder or find_artifacts_folder()) / MANIFEST_NAME
    try:
        manifest = Fields.parse(path.read_text(encoding="utf-8"))
        schema = manifest.integer("schema")
        listed = manifest.list_of_nested("graphs") if schema == MANIFEST_SCHEMA else ()
        graphs = tuple(_shipped_graph(fields) for fields in listed)
    except (OSError, UnicodeDecodeError, JsonFieldError) as error:
        message = f"The list of shipped graphs {path} cannot be read ({error}): install pxdbg-runtime again."
        raise ManifestError(path, message) from None
    if schema != MANIFEST_SCHEMA:
        message = f"The list of shipped graphs {path} has schema {schema}: expected {MANIFEST_SCHEMA}."
        raise ManifestError(path, message)
    return graphs


def _shipped_graph(fields: Fields) -> BuiltinGraph:
    made = BuiltinGraph(
        name=fields.text("name"),
        precision=fields.one_of("precision", PRECISIONS),
        target=fields.one_of("target", get_args(Target)),
        file=fields.text("file"),
        size=fields.integer("size", NumberRange(1)),
        sha256=fields.sha256("sha256"),
    )
    if made.file == ".." or Path(made.file).name != made.file:
        message = f"{fields.path('file')} must be the name of a file beside the manifest, but is {made.file!r}."
        raise JsonFieldError(fields.path("file"), message)
    return made


def find_graph(model: str | Path, precision: Precision | None, target: Target = "cpu") -> GraphFile:
    """Find a graph by the name of a shipped model or by its path, and read it.

    Parameters
    ----------
    model : str or Path
        A name in the manifest, or the path of a graph file: a string with a folder in it or ending in ``.onnx``.
    precision : {"float32", "float16", "int8"} or None
        Which of a shipped model's graphs. None takes float16 for CUDA; for a CPU, int8 if the graph's digits were found as
        good as float32's at export and are the same on every CPU; else float32. So the choice depends on the model and
        the target alone, never on the machine. A graph given by its path must have the precision.
    target : {"cpu", "cuda"}
        The execution provider to find it for: graphs that are for this one are preferred.

    Raises
    ------
    ModelNotFoundError
        If there is neither a model nor a file of this name.
    ArgumentValueError
        If the model has no graph of this precision.
    GraphFileError, CardError, ManifestError
        If the file is not whole.
    """
    model = _checked_model(model)
    if isinstance(model, Path) or is_path(model):
        return _find_file(Path(model), precision)
    candidates = [graph for graph in read_manifest() if graph.name == model]
    if not candidates:
        raise _not_found(model, "not a shipped model")
    if precision is not None and precision not in {graph.precision for graph in candidates}:
        raise _no_such_precision(model, precision, tuple(dict.fromkeys(graph.precision for graph in candidates)))
    wanted = _in_order(target) if precision is None else (precision,)
    candidates.sort(key=lambda graph: (_place(graph.precision, wanted), graph.target != target))
    for listed in candidates[:-1]:
        graph = _read_shipped(listed)
        if precision is not None or _is_chosen_by_itself(graph.card):
            return graph
    return _read_shipped(candidates[-1])


def is_best_for_cpu(model: str | Path, precision: Precision | None, card: ModelCard) -> bool:
    """Say whether `find_graph`, asked for a CPU, is known to find the graph that it found for another target.

    Parameters
    ----------
    model : str or Path
    precision : {"float32", "float16", "int8"} or None
        The arguments that it found the graph by.
    card : ModelCard
        Of the graph that it found.
    """
    # A path names one graph, and a model has at most one graph of a precision for the CPU.
    return is_path(model) or (precision is not None and card.target == "cpu")


def is_path(model: str | Path) -> bool:
    """Say whether a model is given by the path of a graph file, and not by its name."""
    return isinstance(model, Path) or Path(model).suffix == ".onnx" or Path(model).name != model


def _in_order(target: Target) -> tuple[Precision, ...]:
    """List the precisions that a target is best served with, the best first."""
    if target == "cuda":
        return ("float16", "float32")
    return ("int8", "float32")


def _is_chosen_by_itself(card: ModelCard) -> bool:
    """Whether the digits are as good as float32's, and the same on every machine."""
    is_as_good = card.fidelity is None or card.fidelity.is_within_bounds
    return is_as_good and card.weight_bits != FULL_WEIGHT_BITS


def _place(precision: Precision, wanted: tuple[Precision, ...]) -> int:
    return wanted.index(precision) if precision in wanted else len(wanted)


def _checked_model(model: object) -> str | Path:
    if not isinstance(model, (str, Path)):
        message = f"model must be the name of a model or the path of a graph, but is {model!r}."
        raise ArgumentTypeError("model", message)
    return model


def _find_file(path: Path, precision: Precision | None) -> GraphFile:
    if not os.path.exists(path) or os.path.isdir(path):  # noqa: PTH110, PTH112  # Path's own raise for too long a name
        raise _not_found(str(path), "a folder" if os.path.isdir(path) else "not a file that exists")  # noqa: PTH112
    graph = read_graph_file(path)
    if precision is not None and graph.card.precision != precision:
        raise _no_such_precision(str(path), precision, (graph.card.precision,))
    return graph


def _not_found(model: str, what: str) -> ModelNotFoundError:
    names = sorted({graph.name for graph in read_manifest()})
    message = (
        f"The model {model!r} is {what}: expected {' or '.join(names)}, or the path of a graph made by "
        "python -m export, ending in .onnx."
    )
    return ModelNotFoundError(model, names, message)


def _no_such_precision(model: str, precision: str | None, available: tuple[str, ...]) -> ArgumentValueError:
    message = (
        f"The model {model!r} has no {precision} graph: it comes as {', '.join(available)}; "
        "precision='auto' takes what there is."
    )
    return ArgumentValueError("precision", message)


def _read_shipped(listed: BuiltinGraph) -> GraphFile:
    path = find_artifacts_folder() / listed.file
    try:
        size = path.stat().st_size
    except OSError as error:
        message = f"The shipped graph {path} cannot be read: {error.strerror}; install pxdbg-runtime again."
        raise GraphFileError(path, message) from None
    if size != listed.size:
        message = (
            f"The shipped graph {path} has {size} bytes, but the manifest says {listed.size}: "
            "install pxdbg-runtime again."
        )
        raise GraphFileError(path, message)
    graph = read_graph_file(path)
    if graph.sha256 != listed.sha256:
        message = (
            f"The shipped graph {path} has the SHA-256 {graph.sha256}, but the manifest says {listed.sha256}: "
            "install pxdbg-runtime again."
        )
        raise GraphFileError(path, message)
    return graph
