"""``pxdbg models``: list the built-in models."""

from __future__ import annotations

from rich.table import Table

from pxdbg_runtime.command_line.console import report_failures, stdout
from pxdbg_runtime.command_line.safe_text import make_line
from pxdbg_runtime.model.builtin_models import find_graph, read_manifest
from pxdbg_runtime.model.card import describe_weights

__all__ = ["models"]


def models() -> None:
    """List the built-in models, each checked against the manifest."""
    with report_failures():
        table = Table("model", "precision", "size", "weights")
        models_of_weights: dict[str, list[str]] = {}
        for listed in read_manifest():
            card = find_graph(listed.name, listed.precision, listed.target).card
            table.add_row(listed.name, listed.precision, f"{listed.size / 1e6:.1f} MB", card.nature)
            names = models_of_weights.setdefault(describe_weights(card.nature, card.provenance), [])
            if listed.name not in names:
                names.append(listed.name)
        stdout.print(table)
        for weights, names in models_of_weights.items():
            stdout.print(make_line(f"{', '.join(names)}: {weights}"), soft_wrap=True)
