"""The built-in models: their graphs are listed in a manifest with sizes and SHA-256, and checked against it."""

from __future__ import annotations

import functools
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from pxdbg_runtime.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    GraphFileError,
    JsonFieldError,
    ManifestError,
    ModelNotFoundError,
)
from pxdbg_runtime.json_records import PositiveInteger, Record, Sha256, Text, decode_record
from pxdbg_runtime.model.card import FULL_WEIGHT_BITS, ModelCard, Precision, Target
from pxdbg_runtime.model.graph_file import GraphFile, read_graph_file

if TYPE_CHECKING:
    from pxdbg_runtime.checks import StrPath

__all__ = [
    "DEFAULT_MODEL",
    "MANIFEST_NAME",
    "MANIFEST_SCHEMA",
    "BuiltinGraph",
    "find_artifacts_folder",
    "find_graph",
    "format_manifest",
    "is_best_for_cpu",
    "is_path",
    "read_manifest",
]

DEFAULT_MODEL: Final = "ieagan"
MANIFEST_NAME: Final = "manifest.json"
MANIFEST_SCHEMA: Final = 1
_PREFERRED_PRECISIONS: Final[dict[Target | None, tuple[Precision, ...]]] = {
    "cuda": ("float16", "float32"),
    "cpu": ("int8", "float32"),
    None: ("float32",),
}


class BuiltinGraph(Record, frozen=True, kw_only=True):
    """One graph of the manifest.

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

    name: Text
    precision: Precision
    target: Target
    file: Text
    size: PositiveInteger
    sha256: Sha256

    def __post_init__(self) -> None:
        if self.file == ".." or Path(self.file).name != self.file:
            raise JsonFieldError("file", f"file must be the name of a file beside the manifest, but is {self.file!r}.")


class _Manifest(Record, frozen=True, kw_only=True):
    """The list of the built-in graphs."""

    schema: Annotated[int, msgspec.Meta(ge=MANIFEST_SCHEMA, le=MANIFEST_SCHEMA)]
    graphs: Annotated[tuple[BuiltinGraph, ...], msgspec.Meta(min_length=1)]


def find_artifacts_folder() -> Path:
    """Find the folder of the built-in graphs: inside the installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "artifacts"
    return installed if installed.is_dir() else package.parent / "artifacts"


def format_manifest(graphs: tuple[BuiltinGraph, ...]) -> str:
    """Encode a manifest as JSON."""
    return json.dumps(msgspec.to_builtins(_Manifest(schema=MANIFEST_SCHEMA, graphs=graphs)), indent=2) + "\n"


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
        return decode_record(path.read_text(encoding="utf-8"), _Manifest).graphs
    except (OSError, UnicodeDecodeError, JsonFieldError) as error:
        message = f"The list of built-in graphs {path} cannot be read ({error}): install pxdbg-runtime again."
        raise ManifestError(path, message) from None


def find_graph(model: StrPath, precision: Precision | None, target: Target | None = "cpu") -> GraphFile:
    """Find a graph by the name of a built-in model or by its path, and read it.

    Parameters
    ----------
    model : str or path
        A name in the manifest, or the path of a graph file: a string with a folder in it or ending in ``.onnx``.
    precision : {"float32", "float16", "int8"} or None
        Which graph of a built-in model. None takes float16 for CUDA, and int8 for a CPU, if the model has such a graph,
        at export its digits were as good as float32's, and they are the same on every machine; else float32. So the
        choice depends on the model and the target only, never on the machine. A graph given by its path must have this
        precision.
    target : {"cpu", "cuda"} or None
        The preferred execution provider of the graph; None for any other, which runs graphs for the CPU in float32.

    Raises
    ------
    ModelNotFoundError
        If there is neither a built-in model nor a file of this name.
    ArgumentValueError
        If the model has no graph of this precision.
    GraphFileError, CardError, ManifestError
        If the graph or the manifest is damaged or not valid.
    """
    _check_model(model)
    if is_path(model):
        return _find_file(Path(model), precision)
    candidates = [graph for graph in read_manifest() if graph.name == model]
    if not candidates:
        is_file = os.path.isfile(model)  # noqa: PTH113  # Path.is_file raises for too long a name
        other = ", but a file whose name does not end in .onnx" if is_file else ""
        raise _describe_missing_model(str(model), f"not a built-in model{other}")
    if precision is not None and precision not in {graph.precision for graph in candidates}:
        available = list(dict.fromkeys(graph.precision for graph in candidates))
        message = (
            f"The model {str(model)!r} has no {precision} graph. It has {' and '.join(available)} alone: choose "
            f"{'that' if len(available) == 1 else 'one of them'}, or auto."
        )
        raise ArgumentValueError("precision", message)
    wanted = _PREFERRED_PRECISIONS[target] if precision is None else (precision,)
    candidates.sort(key=lambda graph: (_rank(graph.precision, wanted), graph.target != (target or "cpu")))
    for listed in candidates[:-1]:
        graph = _read_builtin(listed)
        if precision is not None or _is_as_good_as_float32(graph.card):
            return graph
    return _read_builtin(candidates[-1])


def is_best_for_cpu(model: StrPath, precision: Precision | None, card: ModelCard) -> bool:
    """Whether `find_graph` is known to find the same graph for a CPU as it found for another target.

    Parameters
    ----------
    model : str or path
    precision : {"float32", "float16", "int8"} or None
        The arguments of `find_graph`.
    card : ModelCard
        Of the found graph.
    """
    # A path names one graph, and a model has at most one graph of each precision for the CPU.
    return is_path(model) or (precision is not None and card.target == "cpu")


def is_path(model: StrPath) -> bool:
    """Whether a model is given by the path of a graph file, and not by its name."""
    return isinstance(model, os.PathLike) or Path(model).suffix == ".onnx" or Path(model).name != model


def _check_model(model: object) -> None:
    if not isinstance(model, str | os.PathLike):
        raise ArgumentTypeError("model", f"model must be the name of a model or the path of a graph, but is {model!r}.")


def _is_as_good_as_float32(card: ModelCard) -> bool:
    """Whether the digits are as good as float32's, and the same on every machine."""
    is_faithful = card.fidelity is None or card.fidelity.is_within_bounds
    return is_faithful and card.weight_bits != FULL_WEIGHT_BITS


def _rank(precision: Precision, wanted: tuple[Precision, ...]) -> int:
    return wanted.index(precision) if precision in wanted else len(wanted)


def _find_file(path: Path, precision: Precision | None) -> GraphFile:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise _describe_missing_model(str(path), "not a file that exists") from None
    except OSError:  # which reading it reports
        is_folder = False
    if is_folder:
        raise _describe_missing_model(str(path), "a folder")
    graph = read_graph_file(path)
    if precision is not None and graph.card.precision != precision:
        found = graph.card.precision
        raise ArgumentValueError("precision", f"The graph {path} is {found}, not {precision}: choose {found}, or auto.")
    return graph


def _describe_missing_model(model: str, found: str) -> ModelNotFoundError:
    names = sorted({graph.name for graph in read_manifest()})
    message = (
        f"The model {model!r} is {found}: expected {' or '.join(names)}, or the path of a graph from "
        "python -m export, which ends in .onnx."
    )
    return ModelNotFoundError(model, names, message)


def _read_builtin(listed: BuiltinGraph) -> GraphFile:
    path = find_artifacts_folder() / listed.file
    try:
        size = path.stat().st_size
    except OSError as error:
        message = f"The built-in graph {path} cannot be read: {error.strerror}; install pxdbg-runtime again."
        raise GraphFileError(path, message) from None
    found, expected = f"{size} bytes", f"{listed.size}"
    if size == listed.size:
        graph = read_graph_file(path)
        found, expected = f"the SHA-256 {graph.sha256}", listed.sha256
        if graph.sha256 == listed.sha256:
            return graph
    message = f"The built-in graph {path} has {found}, but the manifest says {expected}: install pxdbg-runtime again."
    raise GraphFileError(path, message)
