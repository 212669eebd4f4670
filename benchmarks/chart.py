"""A bar chart of a report: one bar for each measurement, one panel for each unit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.report import Report
from benchmarks.timing import Measurement
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FORMATS: Final = (".pdf", ".png", ".svg")
_WIDTH_INCHES: Final = 10.0
_BAR_INCHES: Final = 0.25
_FRAME_INCHES: Final = 1.0


def check_format(path: Path) -> None:
    """Check before the work that matplotlib is installed and that it can write a file of this name."""
    if path.suffix.lower() not in _FORMATS:
        message = f"{path} must end in the name of an image format: expected one of {', '.join(_FORMATS)}."
        raise ArgumentValueError("plot", message)
    require("matplotlib", extra="plot", purpose="A chart")


def draw_chart(report: Report) -> Figure:
    """Draw the measurements of a report that have samples: medians as bars, the spread as a line."""
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
    positions = range(len(measurements))
    medians = [each.median for each in measurements]
    below = [each.median - min(each.samples) for each in measurements]
    above = [max(each.samples) - each.median for each in measurements]
    bars = axes.barh(positions, medians, xerr=(below, above), color="0.7", ecolor="0.2", capsize=2)
    axes.set_yticks(positions, [", ".join(each.labels) for each in measurements], fontsize="small", parse_math=False)
    axes.bar_label(bars, labels=[f" {median:.3g}" for median in medians], fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(unit)
