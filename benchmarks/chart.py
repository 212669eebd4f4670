"""A bar chart of a report: one bar a measurement, one panel a unit."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.report import Report
    from benchmarks.timing import Measurement

__all__ = ["check_format", "draw_chart", "save_chart"]

_FORMATS: Final = (".pdf", ".png", ".svg")
_WIDTH_INCHES: Final = 10.0
_BAR_INCHES: Final = 0.25
_FRAME_INCHES: Final = 1.0
_DPI: Final = 110


def check_format(path: Path) -> None:
    """Find out before the work whether a chart can be drawn and saved under this name.

    Raises
    ------
    ArgumentValueError
        If it does not end in .pdf, .png or .svg.
    MissingPackageError
        If matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        message = f"{path} must end in the name of a picture format: expected one of {', '.join(_FORMATS)}."
        raise ArgumentValueError("plot", message)
    require("matplotlib", extra="plot", purpose="A chart")


def save_chart(report: Report, path: Path) -> None:
    """Draw a report and save the chart.

    Raises
    ------
    ArgumentValueError, MissingPackageError
        As `check_format`.
    OutputError
        If the file cannot be written.
    """
    check_format(path)
    picture = io.BytesIO()
    draw_chart(report).savefig(picture, format=path.suffix.removeprefix(".").lower(), dpi=_DPI)
    with atomic_write(path) as partial:
        partial.write_bytes(picture.getbuffer())


def draw_chart(report: Report) -> Figure:
    """Draw the measurements of a report: medians as bars, the spread as a line; what was not measured is left out.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    require("matplotlib", extra="plot", purpose="A chart")
    from matplotlib.figure import Figure

    by_unit: dict[str, list[Measurement]] = {}
    for measurement in report.measurements:
        if measurement.samples:
            by_unit.setdefault(measurement.unit, []).append(measurement)
    heights = [_FRAME_INCHES + _BAR_INCHES * len(measurements) for measurements in by_unit.values()]
    figure = Figure(figsize=(_WIDTH_INCHES, sum(heights) + _FRAME_INCHES), layout="constrained")
    title = f"{report.command}: {report.environment.processor}, {report.environment.date}"
    figure.suptitle(title, fontsize="medium", parse_math=False)
    if by_unit:
        panels = figure.subplots(len(by_unit), 1, squeeze=False, height_ratios=heights)
        for axes, (unit, measurements) in zip(panels[:, 0], by_unit.items(), strict=True):
            _draw_panel(axes, unit, measurements)
    return figure


def _draw_panel(axes: Axes, unit: str, measurements: list[Measurement]) -> None:
    places = range(len(measurements))
    medians = [each.median for each in measurements]
    below = [each.median - each.smallest for each in measurements]
    above = [each.largest - each.median for each in measurements]
    bars = axes.barh(places, medians, xerr=(below, above), color="0.7", ecolor="0.2", capsize=2)
    axes.set_yticks(places, [", ".join(each.labels) for each in measurements], fontsize="small", parse_math=False)
    axes.bar_label(bars, labels=[f" {median:.3g}" for median in medians], fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(unit)
