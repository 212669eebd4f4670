"""``python -m export payload``: graphs take the names and places of the payloads that the basf2 module reads."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from export.conditions.naming import graph_payload_name, payload_path
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError, OutputError
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.model.card import Precision, Target
from pxdbg_runtime.model.graph_file import GraphFile, read_graph_file

__all__ = ["Payload", "app", "write_payloads"]

app = Program(
    name="python -m export payload", add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)

_FAMILY: Final = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A graph that lies where the cache of the conditions database would have it.

    Attributes
    ----------
    graph : GraphFile
        What it was made of.
    name : str
    md5 : str
    path : Path
    """

    graph: GraphFile
    name: str
    md5: str
    path: Path


def write_payloads(
    folder: Path, output: Path, *, precision: Precision = "float32", target: Target = "cpu", revision: int = 1
) -> tuple[Payload, ...]:
    """Copy the graphs of a folder to the places of payloads, one for each family of generators.

    Parameters
    ----------
    folder : Path
        Where the graphs are.
    output : Path
        Folder that gets the layout of the cache of the conditions database.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        Of which graphs are taken.
    revision : int
        Of the payloads, 0 or more.

    Returns
    -------
    tuple of Payload
        In the order of the names.

    Raises
    ------
    ArgumentValueError
        If there is no such graph, or two of a family.
    GraphFileError, CardError
        If a graph is not whole.
    OutputError
        If a payload cannot be written.
    """
    found: dict[str, GraphFile] = {}
    for path in sorted(folder.glob("*.onnx")):
        graph = read_graph_file(path)
        if (graph.card.precision, graph.card.target) != (precision, target):
            continue
        if not _FAMILY.fullmatch(graph.card.family):
            message = f"{path} is of the family {graph.card.family!r}: expected small letters and digits alone."
            raise GraphFileError(path, message)
        other = found.setdefault(graph.card.family, graph)
        if other is not graph:
            message = (
                f"{folder} holds two {graph.card.family} graphs in {precision} for {target}, {other.path.name} and "
                f"{path.name}: expected one, as both would be the payload {graph_payload_name(graph.card.family)}."
            )
            raise ArgumentValueError("folder", message)
    if not found:
        message = (
            f"{folder} holds no graph in {precision} for {target}: expected a folder that python -m export has "
            "written to. Choose others with --precision and --target."
        )
        raise ArgumentValueError("folder", message)
    return tuple(_written(found[family], output, revision) for family in sorted(found))


def _written(graph: GraphFile, output: Path, revision: int) -> Payload:
    md5 = hashlib.md5(graph.content, usedforsecurity=False).hexdigest()
    name = graph_payload_name(graph.card.family)
    path = payload_path(output, name, revision, md5)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The folder {path.parent} cannot be made: {error.strerror or error}."
        raise OutputError(path.parent, message) from None
    with atomic_write(path) as partial:
        partial.write_bytes(graph.content)
    return Payload(graph=graph, name=name, md5=md5, path=path)


@app.command(epilog="Example: python -m export payload graphs")
def main(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of graphs, as python -m export writes them.")],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="DIR/payloads", help="Folder for the payloads.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Which graphs to take.")] = "float32",
    target: Annotated[
        Target | None, typer.Option(show_default="cpu, for float16 cuda", help="Which graphs to take.")
    ] = None,
    revision: Annotated[int, typer.Option(min=0, help="Revision that the payloads shall have.")] = 1,
) -> None:
    """Give graphs the names and places of payloads of the conditions database.

    A payload PXDBackgroundGenerator_<model>_onnx is the graph, byte for byte. It is written to
    <first two digits of its MD5>/<name>_r<revision>.root, as in the cache of basf2.
    """
    with report_failures():
        usual: Target = "cuda" if precision == "float16" else "cpu"
        written = write_payloads(
            folder, output or folder / "payloads", precision=precision, target=target or usual, revision=revision
        )
        for each in written:
            line = (
                f"wrote {each.path}: payload {each.name} revision {revision}, MD5 {each.md5}, of {each.graph.path.name}"
            )
            stdout.print(line, markup=False, soft_wrap=True)
