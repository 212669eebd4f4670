"""``pxdbg doctor``: whether this machine can generate events, how fast, and what to install for more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Column, Table
from rich.text import Text

from pxdbg_runtime.command_line.completion import complete_model
from pxdbg_runtime.command_line.console import FAILURE, report_failures, stdout
from pxdbg_runtime.diagnosis.extras import diagnose_extras, list_requirements
from pxdbg_runtime.diagnosis.machine import diagnose_installation, diagnose_job
from pxdbg_runtime.documentation import link_section
from pxdbg_runtime.model.builtin_models import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pxdbg_runtime.diagnosis.finding import Finding

__all__ = ["doctor"]

_COLOURS: Final = {"ok": "green", "note": "yellow", "missing": "yellow", "broken": "red", "fails": "bold red"}


def doctor(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a built-in model, or path of a graph (.onnx), to try.", autocompletion=complete_model
        ),
    ] = DEFAULT_MODEL,
    quick: Annotated[
        bool, typer.Option("--quick", help="Time nothing, and look up the versions of extras without importing them.")
    ] = False,
) -> None:
    """Diagnose this machine: whether it can generate events, how fast, and what to install for more.

    The exit code is 0 if events can be generated, else 1. pxdbg providers tries
    each execution provider, and pxdbg check computes the known images of all
    graphs.
    """
    with report_failures():
        requirements = list_requirements()
        findings = [
            *_print_findings("installation", diagnose_installation(requirements)),
            *_print_findings("this job", diagnose_job()),
        ]
        if not _find_failures(findings):
            from pxdbg_runtime.diagnosis.generation import diagnose_generation

            findings += _print_findings("generating", diagnose_generation(model, timing=not quick))
        _print_findings("for more", diagnose_extras(requirements, imports=not quick))
        failures = _find_failures(findings)
        if failures:
            names = ", ".join(each.subject for each in failures)
            message = f"This machine cannot generate events: {names}. See {link_section('running.md#providers')}"
            stdout.print(message, soft_wrap=True)
            raise typer.Exit(FAILURE)
        stdout.print("This machine can generate events.")


def _print_findings(title: str, findings: Iterable[Finding]) -> list[Finding]:
    """Print findings as a table, and return them; nothing if there are none."""
    listed = list(findings)
    table = Table(title, Column("", no_wrap=True), Column("", overflow="fold"))
    for each in listed:
        table.add_row(each.subject, Text(each.state, style=_COLOURS[each.state]), each.text)
    if listed:
        stdout.print(table)
    return listed


def _find_failures(findings: Iterable[Finding]) -> list[Finding]:
    return [each for each in findings if each.state == "fails"]
