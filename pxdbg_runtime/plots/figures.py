"""Draw samples of digits: charges, occupancies, cluster sizes, and the hits of one sensor.

Each function takes `Digits`, or an iterable of them with one item an event, such as ``open_events(path)``, and returns
the axes that it drew into: those that it was given, or new ones in a figure of their own, ``axes.figure``. With a
style, mplhep's settings apply to what the call draws, and to nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.plots.drawing import (
    COLOUR_OF_LAYER,
    DPI,
    StyleName,
    apply_style,
    choose_charge_colours,
    choose_charge_ticks,
    create_axes,
)
from pxdbg_runtime.plots.histograms import (
    MAX_CLUSTER_SIZE,
    fill_charges,
    fill_cluster_sizes,
    fill_hit_map,
    fill_occupancies,
)
from pxdbg_runtime.plots.summary import GEANT4_MEAN_CHARGE, GEANT4_OCCUPANCIES
from pxdbg_runtime.sensors import (
    LADDERS_OF_LAYER,
    LAYER_OF_SENSOR,
    MAX_CHARGE_ADU,
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    PLACE_OF_SENSOR,
    READOUT_THRESHOLD_ADU,
    SENSORS,
    SensorLike,
    sensor_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pxdbg_runtime.plots.histograms import Events
    from pxdbg_runtime.sensors import Sensor

__all__ = ["draw_charges", "draw_cluster_sizes", "draw_occupancies", "draw_sensor"]

_SPECTRUM_SIZE: Final = (7.0, 4.5)
_WIDE_SIZE: Final = (11.0, 4.4)
"""Width and height in inches."""
_MAP_DPI: Final = 1.5 * DPI
"""Two dots for each cell: with fewer, some cells are drawn twice as wide as others."""
_LINEWIDTH: Final = 0.13
_TITLE_PAD: Final = 0.6
"""Width of lines and distance of titles, in sizes of letters."""
_GEANT4_CUT: Final = f"{READOUT_THRESHOLD_ADU} ADU or more"
_FIRST_SIZES: Final = 15
"""Cluster sizes that are drawn in any case."""


def draw_charges(
    events: Events,
    *,
    title: str = "",
    label: str | None = None,
    compare_geant4: bool = True,
    axes: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the charge spectrum: the share of the digits in each bin of 1 ADU.

    Parameters
    ----------
    events : Digits or iterable of Digits
    title : str
    label : str or None
        Name of the sample in the legend, which also has the number of digits and their mean charge.
    compare_geant4 : bool
        Whether to draw the mean charge of the Geant4 simulation, of hits of 7 ADU or more; it says nothing about the
        digits of random weights, or of a larger threshold.
    axes : Axes or None
        Where to draw; several samples may share axes.
    style : str or None
        As of `apply_style`.

    Raises
    ------
    MissingPackageError
        If matplotlib, hist or, for a style, mplhep is not installed.
    ArgumentValueError
        If there is no such style.
    """
    with apply_style(style):
        histogram = fill_charges(events)
        axes = axes or create_axes(*_SPECTRUM_SIZE)
        counts = histogram.values()
        n_digits = int(counts.sum())
        charges = np.arange(1, MAX_CHARGE_ADU + 1)
        mean = f", mean {counts @ charges / n_digits:.1f} ADU" if n_digits else ""
        edges = np.arange(MAX_CHARGE_ADU + 1) + 0.5
        _draw_shares(axes, counts, edges, _join_label(label, f"{n_digits:,} digits{mean}"))
        name = f"mean of Geant4, {_GEANT4_CUT}: {GEANT4_MEAN_CHARGE:.0f} ADU"
        if compare_geant4 and name not in [line.get_label() for line in axes.lines]:  # which several samples share
            axes.axvline(GEANT4_MEAN_CHARGE, color="black", linestyle="--", linewidth=_compute_linewidth(), label=name)
        axes.set(xlabel="charge (ADU)", ylabel="share of the digits / ADU", xlim=(0, MAX_CHARGE_ADU + 1))
        _add_legend(axes)
        _add_title(axes, title)
        return axes


def draw_cluster_sizes(
    events: Events,
    *,
    title: str = "",
    label: str | None = None,
    axes: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the sizes of 8-connected clusters: the share of the clusters with 1, 2, … 40 digits, and with more.

    Parameters and errors are those of `draw_charges`, without Geant4.
    """
    with apply_style(style):
        histogram = fill_cluster_sizes(events)
        axes = axes or create_axes(*_SPECTRUM_SIZE)
        counts = histogram.values(flow=True)
        n_clusters = int(counts.sum())
        single = f", {100 * counts[0] / n_clusters:.1f} % of one digit" if n_clusters else ""
        edges = np.arange(len(counts) + 1) + 0.5
        # Up to the largest size of any sample in the axes, but not a narrow range.
        largest = int(np.flatnonzero(counts).max(initial=0)) + 1
        last = max(_FIRST_SIZES + 0.5, largest + 0.5, axes.get_xlim()[1])
        _draw_shares(axes, counts, edges, _join_label(label, f"{n_clusters:,} clusters{single}"))
        ticks = [1, *range(5, MAX_CLUSTER_SIZE, 5), len(counts)]
        axes.set_xticks(ticks, [*map(str, ticks[:-1]), f"> {MAX_CLUSTER_SIZE}"])
        axes.minorticks_off()
        axes.set(xlabel="cluster size (digits)", ylabel="share of the clusters", xlim=(0.5, last))
        _add_legend(axes)
        _add_title(axes, title)
        return axes


def draw_occupancies(
    events: Events,
    *,
    sensors: Sequence[Sensor] = SENSORS,
    min_charge: int = 1,
    reference: Sequence[float] | NDArray[np.float64] | None = None,
    reference_name: str = "reference",
    compare_geant4: bool = True,
    title: str = "",
    axes: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the mean occupancy of each sensor, beside a reference.

    Bars are the standard errors of the means, from the spread over events; a single event has none.

    Parameters
    ----------
    events : Digits or iterable of Digits
    sensors : sequence of Sensor
        The sensors that the events have; others are left out.
    min_charge : int
        Cut in ADU: digits below it are left out.
    reference : sequence of float, shape (40,), or None
        Occupancy of each sensor, 0 to 1.
    reference_name : str
        Name of the reference in the legend.
    compare_geant4 : bool
        Whether to draw, without a reference, the mean of each layer in the Geant4 simulation, of hits of 7 ADU or more.
    title, axes, style
        As of `draw_charges`.

    Raises
    ------
    MissingPackageError, ArgumentTypeError, ArgumentValueError
        As `draw_charges` and `fill_occupancies`; also if the reference has another shape.
    """
    if reference is not None and np.shape(reference) != (N_SENSORS,):
        message = (
            f"reference must have the occupancies of {N_SENSORS} sensors, but has the shape {np.shape(reference)}."
        )
        raise ArgumentValueError("reference", message)
    with apply_style(style):
        histogram = fill_occupancies(events, min_charge=min_charge)
        axes = axes or create_axes(*_WIDE_SIZE)
        percent, variances = histogram.values(), histogram.variances()
        errors = np.sqrt(variances) if variances is not None and histogram.counts().min() > 1 else None
        for layer, colour in COLOUR_OF_LAYER.items():
            chosen = np.array([sensor.layer == layer and sensor in sensors for sensor in SENSORS])
            axes.bar(
                PLACE_OF_SENSOR[chosen],
                percent[chosen],
                yerr=None if errors is None else errors[chosen],
                color=colour,
                error_kw={"linewidth": _compute_linewidth()},
                label=f"layer {layer}" if chosen.any() else "",
            )
        if reference is not None or compare_geant4:
            _draw_reference(axes, None if reference is None else np.asarray(reference, float), reference_name)
        axes.set_xticks(PLACE_OF_SENSOR, map(str, SENSORS), rotation=90, fontsize="small")
        axes.minorticks_off()
        axes.set(xlabel="sensor: layer.ladder.sensor", ylabel="occupancy (%)", xlim=PLACE_OF_SENSOR[[0, -1]] + (-1, 1))
        _add_legend(axes)
        _add_title(axes, title)
        return axes


def draw_sensor(
    events: Events,
    sensor: SensorLike,
    *,
    weigh_by_charge: bool = False,
    title: str = "",
    axes: Axes | None = None,
    style: StyleName | None = None,
) -> Axes:
    """Draw the hits of one sensor, cell by cell, and a scale of colours beside them.

    Parameters
    ----------
    events : Digits or iterable of Digits
    sensor : Sensor, str or int
        As `sensor_of` takes it.
    weigh_by_charge : bool
        Whether to draw charges in place of numbers of hits; those of several events are summed.
    title : str
        If empty, the name of the sensor.
    axes, style
        As of `draw_charges`.

    Raises
    ------
    MissingPackageError, ArgumentTypeError, ArgumentValueError
        As `draw_charges` and `fill_hit_map`.
    """
    with apply_style(style):
        from matplotlib.colors import Normalize
        from matplotlib.ticker import FixedLocator, MaxNLocator

        histogram = fill_hit_map(events, sensor, weigh_by_charge=weigh_by_charge)
        axes = axes or create_axes(*_WIDE_SIZE, dpi=_MAP_DPI)
        values = histogram.values().T
        charges = values[values > 0]
        scale, colours = choose_charge_colours(charges)
        norm = scale if weigh_by_charge else Normalize(1, max(2, values.max()))
        image = axes.imshow(
            np.ma.masked_equal(values, 0),
            norm=norm,
            cmap=colours,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(-0.5, N_V_CELLS - 0.5, -0.5, N_U_CELLS - 0.5),
        )
        label = "charge (ADU)" if weigh_by_charge else "hits of each cell"
        ticks = FixedLocator(choose_charge_ticks(charges)) if weigh_by_charge else MaxNLocator(integer=True)
        bar = axes.figure.colorbar(image, ax=axes, label=label, ticks=ticks, format="%d", fraction=0.02, pad=0.01)
        bar.ax.minorticks_off()
        axes.set(xlabel="v cell", ylabel="u cell")
        _add_title(axes, title or f"sensor {sensor_of(sensor)}")
        return axes


def _draw_reference(axes: Axes, occupancies: NDArray[np.float64] | None, name: str) -> None:
    """Draw lines at the occupancy of each sensor, or at the mean of each layer in the Geant4 simulation."""
    if occupancies is not None:
        ends = PLACE_OF_SENSOR - 0.5, PLACE_OF_SENSOR + 0.5
        axes.hlines(100 * occupancies, *ends, color="black", linewidth=_compute_linewidth(), label=name)
        return
    for layer in LADDERS_OF_LAYER:
        places = PLACE_OF_SENSOR[layer == LAYER_OF_SENSOR]
        axes.hlines(
            100 * GEANT4_OCCUPANCIES[f"layer {layer}"],
            places[0] - 0.5,
            places[-1] + 0.5,
            color="black",
            linestyle="--",
            linewidth=_compute_linewidth(),
            label=f"Geant4, mean of the layer, {_GEANT4_CUT}" if layer == 1 else "",
        )


def _draw_shares(axes: Axes, counts: NDArray[np.int64], edges: NDArray[np.floating[Any]], label: str) -> None:
    """Draw a histogram of bins of width 1, normalised to a sum of 1."""
    if counts.any():
        axes.set_yscale("log")
    axes.stairs(counts / max(1, counts.sum()), edges, label=label, linewidth=_compute_linewidth())


def _compute_linewidth() -> float:
    """Compute the width of lines in points, by the size of the style's letters, as figures grow with it."""
    import matplotlib as mpl

    return _LINEWIDTH * float(mpl.rcParams["font.size"])


def _join_label(name: str | None, text: str) -> str:
    return text if name is None else f"{name}: {text}"


def _add_title(axes: Axes, title: str) -> None:
    if title:
        import matplotlib as mpl

        pad = _TITLE_PAD * float(mpl.rcParams["font.size"])
        axes.set_title(title, fontsize="medium", parse_math=False, pad=pad)


def _add_legend(axes: Axes) -> None:
    legend = axes.legend(frameon=False, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)  # names of samples may hold a dollar
