"""``pxdbg models``: list the built-in models."""

from __future__ import annotations

from rich.table import Table

from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest

__all__ = ["models"]


def models() -> None:
    """List the built-in models, each checked against the manifest."""
    with report_failures():
        table = Table("model", "precision", "size", "weights", "provenance")
        for listed in read_manifest():
            card = find_graph(listed.name, listed.precision, listed.target).card
            size = f"{listed.size / 1e6:.1f} MB"
            table.add_row(listed.name, listed.precision, size, card.nature, card.provenance)
        stdout.print(table)
