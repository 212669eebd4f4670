"""The summary of a report, for the page and for the terminal: one row for each quantity, one column for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pxdbg_runtime.validation.report import Comparison, DigitReport, Report, Role
    from pxdbg_runtime.validation.seams import Seam, Verdict
    from pxdbg_runtime.validation.sensor_scores import SensorScores

__all__ = ["Cell", "Column", "Row", "build_columns", "build_rows"]

T = TypeVar("T")
Mark = Literal["", "pass", "fail", "undecided"]
_AUC: Final = "classifier test against reference digits: AUC (0.5 is best, no bound)"
_PRECISION: Final = "neighbours against reference digits: precision / recall"
_DENSITY: Final = "neighbours against reference digits: density / coverage"
_FROM_DIGITS: Final = (_AUC, _PRECISION, _DENSITY)
"""Rows that are left out where no column has a value."""
_SEAM_MARKS: Final[dict[Verdict, Mark]] = {"pass": "pass", "fail": "fail", "too few hits": "undecided"}


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column.

    Attributes
    ----------
    name, kind : str
        The two lines of its head.
    comparison : Comparison or None
        With the primary reference.
    against_digits : Comparison or None
        With the first reference of digits, or half against half.
    digits : DigitReport or None
        None for half against half, and for published marginals.
    """

    name: str
    kind: str
    comparison: Comparison | None = None
    against_digits: Comparison | None = None
    digits: DigitReport | None = None


class Cell(NamedTuple):
    """A text, and the verdict where there is a bound."""

    text: str
    mark: Mark = ""


class Row(NamedTuple):
    """One quantity for all columns, with a full label and one for the terminal, empty if it is not shown there."""

    label: str
    short_label: str
    cells: tuple[Cell, ...]


def build_columns(report: Report) -> tuple[Column, ...]:
    """Select the columns: samples, half against half, reference digits, published generators."""
    names = {sample.name for sample in report.samples}
    return (
        *(_build_digits_column(report, each, "sample") for each in report.samples),
        *(
            Column(name=each.name, kind=each.role, comparison=each, against_digits=each)
            for each in report.comparisons
            if each.role == "half against half" and each.name in names
        ),
        *(_build_digits_column(report, each, "reference") for each in report.references),
        *(
            Column(name=each.name, kind="published generator", comparison=each)
            for each in report.comparisons
            if each.role == "published" and each.against == report.primary
        ),
    )


def _build_digits_column(report: Report, digits: DigitReport, role: Role) -> Column:
    simulation = report.find_comparison(digits.name, role, report.references[0].name) if report.references else None
    return Column(
        name=digits.name,
        kind="sample" if role == "sample" else "reference digits",
        comparison=report.find_comparison(digits.name, role, report.primary),
        against_digits=simulation,
        digits=digits,
    )


def build_rows(report: Report) -> tuple[Row, ...]:
    """Format the quantities of each column."""
    columns = build_columns(report)
    scores = [each.comparison.scores if each.comparison else None for each in columns]
    charge = [each.charge if each else None for each in scores]
    occupancy = [each.occupancy if each else None for each in scores]
    against_digits = [each.against_digits for each in columns]
    differences = [each.clusters if each else None for each in against_digits]
    classifications = [each.classification if each else None for each in against_digits]
    neighbours = [each.neighbours if each else None for each in against_digits]
    digits = [each.digits for each in columns]
    clusters = [each.clusters if each else None for each in digits]
    sensor_occupancy = [each.sensor_occupancy if each else None for each in scores]
    sensor_charge = [each.sensor_charge if each else None for each in scores]
    correlations = [each.correlation if each else None for each in digits]
    seams = [each.worst_seam if each else None for each in digits]
    other = "reference digits" if report.references else "the other half"
    rows = (
        _build_row("charge spectrum: W1 (ADU)", charge, lambda of: f"{of.w1:.2f}", short="charge W1"),
        _build_row("charge spectrum: KS", charge, lambda of: f"{of.ks:.3f}"),
        _build_row("occupancy of an image: W1 (percentage points)", occupancy, lambda of: f"{of.w1:.3f}"),
        _build_row("occupancy of an image: KS", occupancy, lambda of: f"{of.ks:.3f}", short="image KS"),
        _build_row(
            "total occupancy, difference",
            scores,
            lambda of: f"{of.total_occupancy_percent:+.1f} %",
            short="total",
        ),
        _build_row(
            "mean over sensors of the relative deviation of occupancy",
            sensor_occupancy,
            lambda of: f"{of.mean_percent:.1f} %",
            short="occupancy by sensor",
        ),
        _build_row("largest deviation of a sensor's occupancy", sensor_occupancy, _format_largest),
        _build_row(
            "mean over sensors of the deviation of the mean charge",
            sensor_charge,
            lambda of: f"{of.mean_percent:.1f} %",
            short="charge by sensor",
        ),
        _build_row("largest deviation of a sensor's mean charge", sensor_charge, _format_largest),
        _build_row("mean occupancy", digits, lambda of: f"{100 * of.marginals.mean_occupancy:.3f} %"),
        _build_row("largest seam", seams, _format_seam, short="seam"),
        _build_row(f"below {report.min_charge} ADU, share of all pixels", digits, _format_below_cut),
        _build_row("cluster size: mean / median", clusters, lambda of: f"{of.mean_size:.2f} / {of.median_size:g}"),
        _build_row(
            f"cluster size against {other}: mean / median",
            differences,
            lambda of: f"{of.mean_size_percent:+.1f} % / {of.median_size_percent:+.1f} %",
        ),
        _build_row(
            "cluster charge (ADU): mean / median",
            clusters,
            lambda of: f"{of.mean_charge_adu:.1f} / {of.median_charge_adu:g}",
        ),
        _build_row(
            f"cluster charge against {other}: mean / median",
            differences,
            lambda of: f"{of.mean_charge_percent:+.1f} % / {of.median_charge_percent:+.1f} %",
        ),
        _build_row(_AUC, classifications, lambda of: f"{of.roc.auc:.3f} ± {of.roc.error:.3f}"),
        _build_row(_PRECISION, neighbours, lambda of: f"{of.precision:.3f} / {of.recall:.3f}"),
        _build_row(_DENSITY, neighbours, lambda of: f"{of.density:.3f} / {of.coverage:.3f}"),
        _build_row("correlation of sensors, mean", correlations, lambda of: f"{of.mean:.3f} ± {of.error:.3f}"),
        _build_row("repeated images / tiles", digits, _format_repeats, short="repeated"),
        _build_row("images with the busiest pixel (expected)", digits, _format_busiest),
    )
    return tuple(row for row in rows if row.label not in _FROM_DIGITS or any(cell.text != "-" for cell in row.cells))


def _build_row(label: str, values: Iterable[T | None], write: Callable[[T], str | Cell], *, short: str = "") -> Row:
    cells = ("-" if value is None else write(value) for value in values)
    return Row(label, short, tuple(Cell(cell) if isinstance(cell, str) else cell for cell in cells))


def _format_seam(seam: Seam) -> Cell:
    size = f"{seam.deviation_percent:+.1f} ± {seam.deviation_error_percent:.1f} %"
    return Cell(f"{size}, {seam.axis} {seam.period}: {seam.verdict}", _SEAM_MARKS[seam.verdict])


def _format_largest(scores: SensorScores) -> str:
    return f"{scores.largest_percent:+.1f} %, {scores.largest_sensor}"


def _format_below_cut(digits: DigitReport) -> str:
    share = digits.below_cut_share
    return "not all in the file" if share is None else f"{100 * share:.4f} %"


def _format_repeats(digits: DigitReport) -> Cell:
    repeats = digits.repeats
    return Cell(f"{repeats.repeated_images} / {repeats.equal_tiles}", "pass" if repeats.is_free else "fail")


def _format_busiest(digits: DigitReport) -> str:
    repeats = digits.repeats
    return f"{repeats.busiest_pixel} of {repeats.compared_images} ({digits.expected_busiest:.1f})"
