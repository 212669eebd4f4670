"""``pxdbg providers``: the execution providers that run a graph here, and how to install the others."""

from __future__ import annotations

from typing import Final

from rich.table import Column, Table
from rich.text import Text

from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.inference.cpu import Cpu, detect_cpu
from pxdbg_runtime.inference.provider_report import list_provider_statuses
from pxdbg_runtime.inference.providers import find_onnxruntime_wheels
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest

__all__ = ["providers"]

_COLOURS: Final = {"runs": "green", "runs some": "yellow", "does not run": "red", "not installed": "yellow"}


def providers() -> None:
    """Show the execution providers: whether each is installed and runs the built-in graphs, and how to install it."""
    with report_failures():
        graphs = [find_graph(each.name, "float32") for each in read_manifest() if each.precision == "float32"]
        statuses = list_provider_statuses(graphs)
        wheels = ", ".join(f"{wheel} {version}" for wheel, version in find_onnxruntime_wheels().items())
        stdout.print(f"installed: {wheels or 'an ONNX Runtime of another build'}", soft_wrap=True)
        cpu = detect_cpu()
        stdout.print(f"CPU: {cpu.name}; instructions for int8 (VNNI): {_format_dot_products(cpu)}", soft_wrap=True)
        table = Table("execution provider", "state", Column("remark", overflow="fold"))
        for status in statuses:
            table.add_row(status.name, Text(status.state, style=_COLOURS[status.state]), status.remark)
        stdout.print(table)


def _format_dot_products(cpu: Cpu) -> str:
    if cpu.dot_products is None:
        return "not known on this system"
    return ", ".join(cpu.dot_products) or "none: int8 takes longer here, with the same digits"
