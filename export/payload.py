"""``python -m export payload``: copy graphs to the names and paths of the payloads that the basf2 module reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from export.conditions.files import flat_path
from export.graph_folder import list_graphs
from pxdbg_runtime.basf2.payloads import graph_payload_name, payload_path
from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.digit_output import Overwrite, check_overwrite
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError, GraphFileError
from pxdbg_runtime.formats.atomic_write import atomic_write, report_file_errors
from pxdbg_runtime.formats.output_path import create_folder
from pxdbg_runtime.model.card import Precision, Target
from pxdbg_runtime.model.graph_file import GraphFile, read_graph_file

__all__ = ["Payload", "app", "write_payloads", "write_testing_payloads"]

app = Program("python -m export payload")

_ALL_RUNS: Final = "0,0,-1,-1"
"""First experiment, first run, last experiment, last run; -1 is no end."""
_MAX_REVISION: Final = 2**63 - 1
_FAMILY: Final = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A copy of a graph, at the path that a payload has in a cache of the conditions database."""

    graph: GraphFile
    name: str
    revision: int
    md5: str
    path: Path


def write_payloads(
    folder: Path, output: Path, *, precision: Precision = "float32", target: Target = "cpu", revision: int = 1
) -> tuple[Payload, ...]:
    """Copy the graphs of a folder to the paths of payloads, one graph of each family.

    Parameters
    ----------
    folder : Path
        Folder of graphs.
    output : Path
        Folder for the payloads, in the layout of a cache of the conditions database.
    precision : {"float32", "float16", "int8"}
    target : {"cpu", "cuda"}
        Copy graphs of this precision and target.
    revision : int
        Revision of the payloads, 0 or more.

    Returns
    -------
    tuple of Payload
        Sorted by name.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the revision is no such integer, the folder cannot be read, or there is no such graph, or two of one family.
    GraphFileError, CardError
        If a graph is damaged.
    OutputError
        If a payload cannot be written.
    """
    revision = check_integer("revision", revision, 0, _MAX_REVISION)
    found: dict[str, GraphFile] = {}
    for path in list_graphs(folder):
        graph = read_graph_file(path)
        if (graph.card.precision, graph.card.target) != (precision, target):
            continue
        if not _FAMILY.fullmatch(graph.card.family):
            message = f"{path} is of the family {graph.card.family!r}: expected a name of small letters and digits."
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
            "written to. Choose other graphs with --precision and --target."
        )
        raise ArgumentValueError("folder", message)
    return tuple(_write_payload(found[family], output, revision) for family in sorted(found))


def _write_payload(graph: GraphFile, output: Path, revision: int) -> Payload:
    md5 = hashlib.md5(graph.content, usedforsecurity=False).hexdigest()
    name = graph_payload_name(graph.card.family)
    path = payload_path(output, name, revision, md5)
    create_folder(path.parent)
    with atomic_write(path) as partial:
        partial.write_bytes(graph.content)
    return Payload(graph=graph, name=name, revision=revision, md5=md5, path=path)


def write_testing_payloads(payloads: Sequence[Payload], folder: Path, *, overwrite: bool = False) -> Path:
    """Write a folder of testing payloads, which basf2's tools for tests and uploads read.

    Parameters
    ----------
    payloads : sequence of Payload
        Each is written to ``dbstore_<name>_rev_<revision>.root``, valid for all runs.
    folder : Path
        The lines of other payloads in its ``database.txt`` stay.
    overwrite : bool
        Whether testing payloads of the same names and revisions, with other content, may be replaced.

    Returns
    -------
    Path
        The file ``database.txt``.

    Raises
    ------
    OutputError
        If the folder cannot be written to, its ``database.txt`` cannot be read, or a testing payload exists and may not
        be replaced.
    """
    create_folder(folder)
    contents = {flat_path(folder, each.name, each.revision): each.graph.content for each in payloads}
    for path, content in contents.items():
        with report_file_errors(path):
            is_same = path.is_file() and path.read_bytes() == content
        check_overwrite(path, overwrite=overwrite or is_same)
    for path, content in contents.items():
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    index = folder / "database.txt"
    with atomic_write(index) as partial:
        names = {f"dbstore/{each.name}".encode() for each in payloads}
        listed = index.read_bytes().splitlines() if index.exists() else []
        lines = [line for line in listed if names.isdisjoint(line.split()[:1])]
        lines += [f"dbstore/{each.name} {each.revision} {_ALL_RUNS}".encode() for each in payloads]
        partial.write_bytes(b"".join(line + b"\n" for line in lines))
    return index


@app.command(epilog="Example: python -m export payload graphs")
def main(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of graphs, as python -m export writes them.")],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", show_default="DIR/payloads", help="Folder for the payloads.")
    ] = None,
    testing_output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", show_default="DIR/testing-payloads", help="Folder for the testing payloads."),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Precision of the graphs.")] = "float32",
    target: Annotated[
        Target | None, typer.Option(show_default="cpu, for float16 cuda", help="Target of the graphs.")
    ] = None,
    revision: Annotated[int, typer.Option(min=0, help="Revision of the payloads.")] = 1,
    overwrite: Overwrite = False,
) -> None:
    """Copy graphs to the names and paths of payloads of the conditions database.

    A payload PXDBackgroundGenerator_<family>_onnx is the graph, byte for byte. It is written to
    <first two digits of its MD5>/<name>_r<revision>.root, as in the cache of basf2.

    The testing payloads are the same graphs as dbstore_<name>_rev_<revision>.root
    beside a database.txt that lists them for all runs, for basf2's testing and
    upload tools.
    """
    with report_failures():
        target = target or ("cuda" if precision == "float16" else "cpu")
        output = output or folder / "payloads"
        payloads = write_payloads(folder, output, precision=precision, target=target, revision=revision)
        for each in payloads:
            name = f"payload {each.name} revision {revision}"
            line = f"wrote {each.path}: {name}, MD5 {each.md5}, from {each.graph.path.name}"
            stdout.print(line, markup=False, soft_wrap=True)
        testing_output = testing_output or folder / "testing-payloads"
        index = write_testing_payloads(payloads, testing_output, overwrite=overwrite)
        stdout.print(f"wrote {index}: testing payloads for all runs", markup=False, soft_wrap=True)
