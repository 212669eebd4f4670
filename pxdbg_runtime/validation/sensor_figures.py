"""The picture of a quantity of the forty sensors: samples beside a reference, and their ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pxdbg_runtime.sensors import LADDERS_OF_LAYER, LAYER_OF_SENSOR, PLACE_OF_SENSOR, SENSORS
from pxdbg_runtime.validation.figure_style import create_figure, escape_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.figure_style import Style

__all__ = ["SensorSeries", "draw_sensors"]


class SensorSeries(NamedTuple):
    """A quantity of the forty sensors of one sample; its errors are known for digits only."""

    name: str
    values: NDArray[np.float64]
    errors: NDArray[np.float64] | None
    style: Style


def draw_sensors(label: str, series: list[SensorSeries]) -> Figure:
    """Draw a quantity of each sensor, and below it the ratio to the first series.

    The error bars of the ratio are those of independent samples, with the errors of the first series if they are known.

    Parameters
    ----------
    label : str
        Of the quantity, with its unit.
    series : list of SensorSeries
        The first is drawn as a line at each sensor, the others as points with error bars.
    """
    figure = create_figure(6.5, 11)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    reference, *others = series
    known = np.where(reference.values > 0, reference.values, np.nan)
    reference_errors = np.zeros(len(SENSORS)) if reference.errors is None else reference.errors
    ends = (PLACE_OF_SENSOR - 0.45, PLACE_OF_SENSOR + 0.45)
    above.hlines(reference.values, *ends, color=reference.style.color, label=escape_name(reference.name))
    below.hlines(known / known, *ends, color=reference.style.color)
    for number, each in enumerate(others):
        # Side by side, so that equal values do not hide each other.
        places = PLACE_OF_SENSOR + 0.8 * ((number + 0.5) / len(others) - 0.5)
        marker = "o" if each.errors is not None else "x"
        ratio = each.values / known
        ratio_errors = None if each.errors is None else np.hypot(each.errors, ratio * reference_errors) / known
        for axes, values, errors in (above, each.values, each.errors), (below, ratio, ratio_errors):
            axes.errorbar(
                *(places, values, errors),
                fmt=marker,
                color=each.style.color,
                markersize=3.5,
                linewidth=1.0,
                label=escape_name(each.name),
            )
    for layer in LADDERS_OF_LAYER:
        of_layer = PLACE_OF_SENSOR[layer == LAYER_OF_SENSOR]
        for axes in (above, below):
            axes.axvspan(of_layer[0] - 0.7, of_layer[-1] + 0.7, color="0.95", zorder=0)
        above.text(of_layer.mean(), 1.02, f"layer {layer}", ha="center", transform=above.get_xaxis_transform())
    below.set_xticks(PLACE_OF_SENSOR, map(str, SENSORS), rotation=90, fontsize="small")
    above.set(ylabel=label, xlim=(PLACE_OF_SENSOR[0] - 0.9, PLACE_OF_SENSOR[-1] + 0.9))
    below.set(ylabel="ratio", xlabel="sensor: layer.ladder.sensor")
    # Outside the axes, as the points fill them.
    figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure
