"""``python -m export.manifest FOLDER``: write a folder's manifest, which lists its graphs with size and SHA-256."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.graph_folder import list_graphs
from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.program import Program
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import atomic_write, check_target
from pxdbg_runtime.model.builtin_models import MANIFEST_NAME, BuiltinGraph, format_manifest
from pxdbg_runtime.model.graph_file import read_graph_file

__all__ = ["write_manifest"]


def write_manifest(folder: Path) -> tuple[BuiltinGraph, ...]:
    """Write the manifest of all graphs of a folder.

    Raises
    ------
    ArgumentValueError
        If the folder cannot be read, or has no graph, or two of one name, precision and target.
    GraphFileError, CardError
        If a graph is damaged.
    OutputError
        If the manifest cannot be written.
    """
    paths = list_graphs(folder)
    check_target(folder / MANIFEST_NAME)
    if not paths:
        message = f"{folder} holds no graph (*.onnx): expected a folder that python -m export has written to."
        raise ArgumentValueError("folder", message)
    graphs: dict[tuple[str, str, str], BuiltinGraph] = {}
    for graph in map(read_graph_file, paths):
        card, file = graph.card, graph.path.name
        listed = BuiltinGraph(
            name=card.name,
            precision=card.precision,
            target=card.target,
            file=file,
            size=graph.size,
            sha256=graph.sha256,
        )
        other = graphs.setdefault((card.name, card.precision, card.target), listed)
        if other is not listed:
            message = (
                f"{folder} holds two graphs {card.name} in {card.precision} for {card.target}, {other.file} "
                f"and {file}: expected one; move the other away."
            )
            raise ArgumentValueError("folder", message)
    listing = tuple(graphs.values())
    with atomic_write(folder / MANIFEST_NAME) as partial:
        partial.write_text(format_manifest(listing), encoding="utf-8")
    return listing


def main(folder: Annotated[Path, typer.Argument(help="Folder of graphs.")]) -> None:
    """Write FOLDER/manifest.json from the graphs in the folder."""
    with report_failures():
        for graph in write_manifest(folder):
            line = f"{graph.name} {graph.precision}: {graph.file}, {graph.size} bytes"
            stdout.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    app = Program("python -m export.manifest")
    app.command()(main)
    app()
