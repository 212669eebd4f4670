"""The report of a benchmark: measurements and claims, as tables on the terminal and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.environment import NOT_INSTALLED, Environment
from benchmarks.timing import Measurement
from pxdbg_runtime.formats.atomic_write import atomic_write

_SCHEMA: Final = 1
"""Version of the layout of the JSON files."""
_NOT_MEASURED: Final = "not measured"
_COLOURS: Final = {"holds": "green", "does not hold": "red", _NOT_MEASURED: "yellow", NOT_INSTALLED: "yellow"}

Bound = Literal["at least", "at most"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A target, and the values measured against it, one for each round; none if a measurement is missing."""

    model: str
    what: str
    bound: Bound
    target: float
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the samples, which must not be empty."""
        return statistics.median(self.samples)

    @property
    def verdict(self) -> Literal["holds", "does not hold", "not measured"]:
        """Whether the median is within the bound."""
        if not self.samples:
            return "not measured"
        holds = self.median >= self.target if self.bound == "at least" else self.median <= self.target
        return "holds" if holds else "does not hold"


def combine_rounds(
    operation: Callable[[float, float], float], first: Measurement, second: Measurement
) -> tuple[float, ...]:
    """Combine two measurements round by round, since what slows a round affects both; empty if one is missing."""
    if not first.samples or not second.samples:
        return ()
    return tuple(operation(*values) for values in zip(first.samples, second.samples, strict=True))


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of strings, as it is printed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def print_to(self, console: Console) -> None:
        """Print the table."""
        table = RichTable(title=self.title, title_justify="left", title_style="bold")
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
        console.print(table)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one command; `columns` names the labels of the measurements.

    The tables are for the terminal; the JSON file holds the measurements and claims instead.
    """

    command: str
    environment: Environment
    families: tuple[str, ...]
    rounds: int
    quick: bool
    remarks: tuple[str, ...]
    columns: tuple[str, ...]
    measurements: tuple[Measurement, ...]
    claims: tuple[Claim, ...] = ()
    tables: tuple[Table, ...] = ()

    def print_to(self, console: Console) -> None:
        """Print the environment, the remarks, the tables, and the reasons of missing measurements."""
        environment = self.environment
        packages = ", ".join(f"{each.package} {each.version}" for each in environment.packages)
        cores = f"{environment.n_cores} core{'s' if environment.n_cores != 1 else ''}"
        for line in (f"{environment.date}, {environment.processor}, {cores}", packages, *self.remarks):
            console.print(line, markup=False, soft_wrap=True)
        for table in self.tables:
            table.print_to(console)
        for line in dict.fromkeys(_explain_absence(each) for each in self.measurements if not each.samples):
            console.print(line, markup=False, soft_wrap=True)

    def save_json(self, path: Path) -> None:
        """Write the report to a JSON file; raises `OutputError` if that is not possible."""
        content = {
            "schema": _SCHEMA,
            "command": self.command,
            "environment": msgspec.to_builtins(self.environment),
            "families": self.families,
            "rounds": self.rounds,
            "quick": self.quick,
            "remarks": self.remarks,
            "measurements": [_list_fields(self.columns, each) for each in self.measurements],
            "claims": [{**msgspec.to_builtins(claim), "verdict": claim.verdict} for claim in self.claims],
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        with atomic_write(path) as partial:
            partial.write_text(text, encoding="utf-8")


def build_measurement_table(title: str, columns: tuple[str, ...], measurements: Sequence[Measurement]) -> Table:
    """Build a table of measurements: labels, median and spread."""
    rows = (
        (*each.labels, f"{format_figures(each.median)} {each.unit}", format_spread(each.samples))
        if each.samples
        else (*each.labels, describe_absence(each), "")
        for each in measurements
    )
    return Table(title=title, columns=(*columns, "median", "min to max"), rows=tuple(rows))


def build_claim_table(title: str, claims: Sequence[Claim]) -> Table:
    """Build a table of claims: target, median, spread and verdict."""
    rows = []
    for claim in claims:
        median = format_figures(claim.median) if claim.samples else ""
        target = f"{claim.bound} {claim.target:g}"
        rows.append((claim.model, claim.what, target, median, format_spread(claim.samples), claim.verdict))
    columns = ("model", "what", "target", "measured", "min to max", "verdict")
    return Table(title=title, columns=columns, rows=tuple(rows))


def format_figures(value: float) -> str:
    """Format a number with three figures.

    Examples
    --------
    >>> [format_figures(value) for value in (12345.6, 12.345, 1.0, 0.00123)]
    ['12,346', '12.3', '1.00', '0.00123']
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def format_spread(samples: Sequence[float]) -> str:
    """Format the smallest and the largest sample; empty if there are none."""
    return f"{format_figures(min(samples))} to {format_figures(max(samples))}" if samples else ""


def describe_absence(measurement: Measurement) -> str:
    """Describe in two words why a measurement has no samples."""
    return NOT_INSTALLED if measurement.reason.startswith(NOT_INSTALLED) else _NOT_MEASURED


def _explain_absence(measurement: Measurement) -> str:
    labels = ", ".join(label for label in measurement.labels if label)
    what = "" if describe_absence(measurement) == NOT_INSTALLED else f"{_NOT_MEASURED}: "
    return f"{labels}: {what}{measurement.reason}"


def _list_fields(columns: tuple[str, ...], measurement: Measurement) -> dict[str, object]:
    samples = measurement.samples
    return {
        "labels": dict(zip(columns, measurement.labels, strict=True)),
        "unit": measurement.unit,
        "samples": samples,
        "median": measurement.median if samples else None,
        "smallest": min(samples, default=None),
        "largest": max(samples, default=None),
        "reason": measurement.reason,
    }
