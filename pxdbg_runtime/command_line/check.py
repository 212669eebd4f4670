"""``pxdbg check``: check that this machine computes the known images of graphs correctly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pxdbg_runtime.command_line.completion import complete_model
from pxdbg_runtime.command_line.console import FAILURE, report_failures, stdout
from pxdbg_runtime.errors import InferenceError, ProviderError
from pxdbg_runtime.inference.devices import name_device
from pxdbg_runtime.inference.providers import AZURE, AZURE_REMARK, CPU, import_onnxruntime
from pxdbg_runtime.inference.session import ImageSession
from pxdbg_runtime.inference.verification import check_known_answers, describe_failure
from pxdbg_runtime.limits.address_space import require_address_space_for_libraries
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest
from pxdbg_runtime.model.graph_file import GraphFile

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check"]


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Result of one graph on one provider."""

    state: str
    colour: str
    cells: tuple[str, ...] = ("", "", "")
    remark: str = ""


def check(
    model: Annotated[
        str | None,
        typer.Argument(
            show_default="all built-in models",
            help="Name of a built-in model, or path of a graph (.onnx).",
            autocompletion=complete_model,
        ),
    ] = None,
) -> None:
    """Check that this machine computes graphs correctly, on each execution provider.

    The card of a graph holds the reference outputs of a few images, computed at
    export. This command computes them again and shows the differences beside
    the limits on the card. If one exceeds its limit, the installed ONNX Runtime
    computes wrong outputs on this CPU or GPU. The exit code is then 1, and also
    if no graph could be checked.
    """
    with report_failures():
        require_address_space_for_libraries()
        onnxruntime = import_onnxruntime()
        table = Table("graph", "provider", "result", "largest difference", "mean difference", "time")
        rows = []
        for graph in _find_graphs(model):
            for provider in onnxruntime.get_available_providers():
                row = _check_graph(graph, provider)
                rows.append(row)
                name = f"{graph.card.name} {graph.card.precision}"
                short = provider.removesuffix("ExecutionProvider")
                table.add_row(name, short, Text(row.state, style=row.colour), *row.cells)
        stdout.print(f"ONNX Runtime {onnxruntime.__version__}; CPU: {name_device(CPU, {})}", soft_wrap=True)
        stdout.print(table)
        for remark in dict.fromkeys(row.remark for row in rows if row.remark):
            stdout.print(remark, soft_wrap=True)
        if any(row.state == "wrong" for row in rows) or not any(row.state == "right" for row in rows):
            raise typer.Exit(FAILURE)


def _find_graphs(model: str | None) -> Iterator[GraphFile]:
    """Read the graph of a path, those of a built-in model, or all built-in graphs; one at a time, as they are large."""
    listed = [each for each in read_manifest() if model in (None, each.name)]
    if model is not None and not listed:
        yield find_graph(model, None)
    for each in listed:
        yield find_graph(each.name, each.precision, each.target)


def _check_graph(graph: GraphFile, provider: str) -> _Row:
    answers = graph.card.known_answers
    if answers is None:
        remark = f"{graph.path} has no known answers: export the checkpoint again."
        return _Row(state="not checked", colour="yellow", remark=remark)
    if provider == AZURE:
        return _Row(state="not run", colour="yellow", remark=f"{AZURE} {AZURE_REMARK}.")
    if provider != CPU and graph.card.precision == "int8":
        return _Row(state="not run", colour="yellow", remark="int8 graphs are for the CPU.")
    try:
        session = ImageSession(graph, provider=provider)
        verdict = check_known_answers(session, answers)
    except (ProviderError, InferenceError) as error:
        return _Row(state="not run", colour="yellow", remark=str(error))
    unit = " ADU" if answers.compared == "charges" else ""
    cells = (
        f"{verdict.largest_difference:.2g}{unit} (max {answers.tolerance:.2g})",
        f"{verdict.mean_difference:.2g}{unit} (max {answers.mean_tolerance:.2g})",
        f"{verdict.seconds:.2f} s",
    )
    if verdict.passed:
        return _Row(state="right", colour="green", cells=cells)
    return _Row(state="wrong", colour="bold red", cells=cells, remark=describe_failure(session, answers, verdict))
