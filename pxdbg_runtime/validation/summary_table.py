"""The table at the top of the page and in the terminal: a row a figure, a column for whatever was compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from pxdbg_runtime.validation.report import ClusterDifference, Comparison, DigitReport, Report, Role

__all__ = ["Cell", "Column", "Row", "summary_columns", "summary_rows"]

Mark = Literal["", "pass", "fail", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column is about.

    Attributes
    ----------
    name, kind : str
        Two lines of its head.
    comparison : Comparison or None
        With the reference of the summary.
    clusters : ClusterDifference or None
        From the simulated digits.
    digits : DigitReport or None
        None for half against half, and where only marginals are public.
    """

    name: str
    kind: str
    comparison: Comparison | None
    clusters: ClusterDifference | None
    digits: DigitReport | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure, and what it means where a bound was set."""

    text: str
    mark: Mark = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A figure of all columns, with a label that says it all and one for the terminal, empty where it is not shown there."""

    label: str
    short_label: str
    cells: tuple[Cell, ...]


def summary_columns(report: Report) -> tuple[Column, ...]:
    """Choose the columns: samples, half against half, simulated digits, published generators."""
    columns = [_of_digits(report, each, "sample") for each in report.samples]
    columns += [
        Column(name=each.name, kind="half against half", comparison=each, clusters=each.clusters, digits=None)
        for each in report.comparisons
        if each.role == "half against half" and each.name in {sample.name for sample in report.samples}
    ]
    columns += [_of_digits(report, each, "reference") for each in report.references]
    columns += [
        Column(name=each.name, kind="published generator", comparison=each, clusters=None, digits=None)
        for each in report.comparisons
        if each.role == "published" and each.against == report.primary
    ]
    return tuple(columns)


def summary_rows(report: Report) -> tuple[Row, ...]:
    """Write out the figures of each column."""
    below = f"1 to {report.min_charge - 1} ADU, share of all pixels"
    columns = summary_columns(report)
    rows: tuple[tuple[str, str, Callable[[Column], Cell]], ...] = (
        ("charge spectrum: W1 (ADU)", "charge W1", lambda column: _charge(column, "w1", 2)),
        ("charge spectrum: KS", "KS", lambda column: _charge(column, "ks", 3)),
        ("occupancy of an image: W1 (percentage points)", "occupancy W1", lambda column: _occupancy(column, "w1", 3)),
        ("occupancy of an image: KS", "KS", lambda column: _occupancy(column, "ks", 3)),
        ("total occupancy, difference", "total", _total),
        ("mean occupancy", "", _mean_occupancy),
        ("largest seam", "seam", _seam),
        (below, "", _below_cut),
        ("cluster size: mean / median", "", _cluster_size),
        ("cluster size against simulation: mean / median", "", _cluster_size_difference),
        ("cluster charge (ADU): mean / median", "", _cluster_charge),
        ("cluster charge against simulation: mean / median", "", _cluster_charge_difference),
        ("correlation of sensors, mean", "", _correlation),
        ("repeated images / tiles", "repeated", _repeats),
        ("images with the busiest pixel (expected)", "", _busiest),
    )
    return tuple(
        Row(label=label, short_label=short_label, cells=tuple(writer(column) for column in columns))
        for label, short_label, writer in rows
    )


_NONE = Cell(text="-")


def _of_digits(report: Report, digits: DigitReport, role: Role) -> Column:
    simulation = report.find(digits.name, role, report.references[0].name) if report.references else None
    return Column(
        name=digits.name,
        kind="sample" if role == "sample" else "simulated digits",
        comparison=report.find(digits.name, role, report.primary),
        clusters=None if simulation is None else simulation.clusters,
        digits=digits,
    )


def _charge(column: Column, score: Literal["w1", "ks"], places: int) -> Cell:
    scores = None if column.comparison is None else column.comparison.scores.charge
    return _NONE if scores is None else Cell(text=f"{getattr(scores, score):.{places}f}")


def _occupancy(column: Column, score: Literal["w1", "ks"], places: int) -> Cell:
    scores = None if column.comparison is None else column.comparison.scores.occupancy
    return _NONE if scores is None else Cell(text=f"{getattr(scores, score):.{places}f}")


def _total(column: Column) -> Cell:
    if column.comparison is None:
        return _NONE
    return Cell(text=f"{column.comparison.scores.total_occupancy_percent:+.1f} %")


def _mean_occupancy(column: Column) -> Cell:
    return _NONE if column.digits is None else Cell(text=f"{100 * column.digits.marginals.mean_occupancy:.3f} %")


def _seam(column: Column) -> Cell:
    seam = None if column.digits is None else column.digits.worst_seam
    if seam is None:
        return _NONE
    mark: dict[str, Mark] = {"pass": "pass", "fail": "fail", "too few hits": "undecided"}
    size = f"{seam.deviation_percent:+.1f} ± {seam.deviation_error_percent:.1f} %"
    return Cell(text=f"{size}, {seam.axis} {seam.period}: {seam.verdict}", mark=mark[seam.verdict])


def _below_cut(column: Column) -> Cell:
    if column.digits is None:
        return _NONE
    share = column.digits.below_cut_share
    return Cell(text="cannot be seen" if share is None else f"{100 * share:.4f} %")


def _cluster_size(column: Column) -> Cell:
    if column.digits is None:
        return _NONE
    return Cell(text=f"{column.digits.clusters.mean_size:.2f} / {column.digits.clusters.median_size:g}")


def _cluster_charge(column: Column) -> Cell:
    if column.digits is None:
        return _NONE
    return Cell(text=f"{column.digits.clusters.mean_charge_adu:.1f} / {column.digits.clusters.median_charge_adu:g}")


def _cluster_size_difference(column: Column) -> Cell:
    if column.clusters is None:
        return _NONE
    return Cell(text=f"{column.clusters.mean_size_percent:+.1f} % / {column.clusters.median_size_percent:+.1f} %")


def _cluster_charge_difference(column: Column) -> Cell:
    if column.clusters is None:
        return _NONE
    return Cell(text=f"{column.clusters.mean_charge_percent:+.1f} % / {column.clusters.median_charge_percent:+.1f} %")


def _correlation(column: Column) -> Cell:
    if column.digits is None or column.digits.mean_correlation is None:
        return _NONE
    return Cell(text=f"{column.digits.mean_correlation:.3f}")


def _repeats(column: Column) -> Cell:
    if column.digits is None:
        return _NONE
    repeats = column.digits.repeats
    return Cell(text=f"{repeats.repeated_images} / {repeats.equal_tiles}", mark="pass" if repeats.is_free else "fail")


def _busiest(column: Column) -> Cell:
    if column.digits is None:
        return _NONE
    repeats = column.digits.repeats
    share = f"{repeats.busiest_pixel} of {repeats.compared_images}"
    return Cell(text=f"{share} ({column.digits.expected_busiest:.1f})")
