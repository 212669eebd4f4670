"""What a benchmark says: tables on the terminal, and the same as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.environment import NOT_INSTALLED
from pxdbg_runtime.formats.atomic_write import atomic_write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from benchmarks.claims import Claim
    from benchmarks.environment import Environment
    from benchmarks.timing import Measurement

__all__ = [
    "SCHEMA",
    "Report",
    "Table",
    "claim_table",
    "figures",
    "measurement_table",
    "missing",
    "spread",
]

SCHEMA: Final = 1
"""Version of the layout of the JSON files."""
_NOT_MEASURED: Final = "not measured"
_COLOURS: Final = {"holds": "green", "does not hold": "red", _NOT_MEASURED: "yellow", NOT_INSTALLED: "yellow"}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts, as it is printed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one command found out.

    Attributes
    ----------
    command : str
        Name of the command.
    environment : Environment
    remarks : tuple of str
        What a reader must know beside the numbers, such as what the weights are worth.
    columns : tuple of str
        What the labels of the measurements are.
    measurements : tuple of Measurement
    claims : tuple of Claim
    tables : tuple of Table
        What is printed; the JSON file holds the measurements and claims instead.
    """

    command: str
    environment: Environment
    remarks: tuple[str, ...]
    columns: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    claims: tuple[Claim, ...] = ()
    tables: tuple[Table, ...] = ()

    def show(self, console: Console) -> None:
        """Print where it ran, the remarks, the tables, and why what was not measured was not."""
        environment = self.environment
        packages = ", ".join(f"{each.package} {each.version}" for each in environment.packages)
        cores = f"{environment.n_cores} core{'s' if environment.n_cores != 1 else ''}"
        for line in (f"{environment.date}, {environment.processor}, {cores}", packages, *self.remarks):
            console.print(line, markup=False, soft_wrap=True)
        for table in self.tables:
            console.print(_rich(table))
        for line in dict.fromkeys(_excuse(each) for each in self.measurements if not each.samples):
            console.print(line, markup=False, soft_wrap=True)

    def to_json(self) -> str:
        """Write the report as JSON."""
        content = {
            "schema": SCHEMA,
            "command": self.command,
            "environment": asdict(self.environment),
            "remarks": self.remarks,
            "measurements": [_measurement_fields(self.columns, each) for each in self.measurements],
            "claims": [{**asdict(claim), "verdict": claim.verdict} for claim in self.claims],
        }
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def save_json(self, path: Path) -> None:
        """Write the report as a JSON file.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with atomic_write(path) as partial:
            partial.write_text(self.to_json(), encoding="utf-8")


def measurement_table(title: str, columns: tuple[str, ...], measurements: Sequence[Measurement]) -> Table:
    """Make the plain table of measurements: labels, median and spread; or that there is none."""
    rows = (
        (*each.labels, f"{figures(each.median)} {each.unit}", spread(each.samples))
        if each.samples
        else (*each.labels, missing(each), "")
        for each in measurements
    )
    return Table(title=title, columns=(*columns, "median", "min to max"), rows=tuple(rows))


def claim_table(title: str, claims: Sequence[Claim]) -> Table:
    """Make the table of what was to be reached: target, measured, spread, verdict."""
    rows = (
        (
            claim.model,
            claim.what,
            f"{claim.bound} {claim.target:g}",
            figures(claim.median) if claim.samples else "",
            spread(claim.samples),
            claim.verdict,
        )
        for claim in claims
    )
    return Table(
        title=title, columns=("model", "what", "target", "measured", "min to max", "verdict"), rows=tuple(rows)
    )


def figures(value: float) -> str:
    """Write a number with three figures.

    Examples
    --------
    >>> [figures(value) for value in (12345.6, 12.345, 1.0, 0.00123)]
    ['12,346', '12.3', '1.00', '0.00123']
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def spread(samples: Sequence[float]) -> str:
    """Write the smallest and the largest of some samples; nothing if there are none."""
    return f"{figures(min(samples))} to {figures(max(samples))}" if samples else ""


def missing(measurement: Measurement) -> str:
    """Say in a table that something is not installed, or was not measured for another reason."""
    return NOT_INSTALLED if measurement.reason.startswith(NOT_INSTALLED) else _NOT_MEASURED


def _excuse(measurement: Measurement) -> str:
    labels = ", ".join(label for label in measurement.labels if label)
    what = "" if missing(measurement) == NOT_INSTALLED else f"{_NOT_MEASURED}: "
    return f"{labels}: {what}{measurement.reason}"


def _measurement_fields(columns: tuple[str, ...], measurement: Measurement) -> dict[str, object]:
    samples = measurement.samples
    return {
        "labels": dict(zip(columns, measurement.labels, strict=True)),
        "unit": measurement.unit,
        "samples": samples,
        "median": measurement.median if samples else None,
        "smallest": measurement.smallest if samples else None,
        "largest": measurement.largest if samples else None,
        "reason": measurement.reason,
    }


def _rich(table: Table) -> RichTable:
    made = RichTable(title=table.title, title_justify="left", title_style="bold")
    for column in table.columns:
        made.add_column(column, overflow="fold")
    for row in table.rows:
        made.add_row(*(_coloured(cell) for cell in row))
    return made


def _coloured(cell: str) -> Text:
    return Text(cell, style=_COLOURS.get(cell, ""))
