"""Draw one event: both layers unrolled, ladder by ladder, the charge spectrum and the occupancies of the sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.checks import check_path
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.plots.drawing import (
    COLOUR_OF_LAYER,
    DPI,
    choose_charge_colours,
    choose_charge_ticks,
    find_picture_format,
    save_figure,
)
from pxdbg_runtime.plots.summary import GEANT4_OCCUPANCIES, SummaryCounter
from pxdbg_runtime.sensors import (
    INDEX_BY_VXD_ID,
    LADDERS_OF_LAYER,
    LAYER_OF_SENSOR,
    MAX_CHARGE_ADU,
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    READOUT_THRESHOLD_ADU,
    SENSORS,
    SENSORS_PER_LADDER,
    select_layer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.sensors import Sensor

__all__ = ["draw_event", "save_event"]

_SIZE_INCHES: Final = (12.0, 8.0)
_POINT_AREA: Final = 0.5
_LABEL_SIZE: Final = 7
_SENSOR_PITCH: Final = N_V_CELLS + 40
"""From one sensor of a ladder to the other, in cells."""
_LADDER_PITCH: Final = N_U_CELLS + 90
"""From one ladder to the next, in cells; the labels are between them."""
_FIRST_COLUMNS: Final = np.array([(sensor.sensor - 1) * _SENSOR_PITCH for sensor in SENSORS])
_FIRST_ROWS: Final = np.array([(sensor.ladder - 1) * _LADDER_PITCH for sensor in SENSORS])
"""Where the cells 0, 0 of each sensor are drawn."""
_V_TICKS: Final = np.array([0, N_V_CELLS // 2])
_SPECTRUM_PLACE: Final = (0.06, 0.77, 0.9, 0.2)
"""Above the ladders of layer 1, which are fewer: left, bottom, width and height in shares of the axes."""


def save_event(
    digits: Digits, path: StrPath, *, title: str, sensors: Sequence[Sensor] = SENSORS, compare_geant4: bool = True
) -> None:
    """Draw one event and save the picture.

    Parameters
    ----------
    digits : Digits
        Of one event. Digits of other detectors are ignored.
    path : str or path
        Ends in .png, .pdf, .svg or another format of matplotlib.
    title : str
    sensors : sequence of Sensor
        The sensors of the event: another one was not generated, which is not the same as empty.
    compare_geant4 : bool
        Whether to draw the occupancies of the Geant4 simulation, of hits of 7 ADU or more; they say nothing about the
        digits of random weights, or of a larger threshold.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentValueError
        If the digits are of several events, or matplotlib does not know the format.
    OutputError
        If the file cannot be written.
    """
    path = check_path("path", path)
    find_picture_format(path)  # before the event is drawn, which takes longer
    save_figure(draw_event(digits, title=title, sensors=sensors, compare_geant4=compare_geant4), path)


def draw_event(
    digits: Digits, *, title: str, sensors: Sequence[Sensor] = SENSORS, compare_geant4: bool = True
) -> Figure:
    """Draw one event.

    Each layer is unrolled: its ladders one above the other, the two sensors of a ladder side by side, in the same scale
    for both layers. Every hit is drawn at its cell, coloured by its charge. Positions are cell numbers, not lengths.
    Beside them the charge spectrum, and the occupancy of each sensor with the mean of its layer in Geant4; beside that
    mean, of hits of 7 ADU or more, other digits are left out.

    Parameters
    ----------
    digits : Digits
        As of `save_event`.
    title : str
    sensors : sequence of Sensor
        As of `save_event`; the others are hatched.
    compare_geant4 : bool
        As of `save_event`.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentValueError
        If the digits are of several events.
    """
    require("matplotlib", extra="plot", purpose="A picture")
    from matplotlib.figure import Figure

    n_events = len(np.unique(digits.event))
    if n_events > 1:
        message = f"digits must be of one event, but are of {n_events:,}: select one with digits.of_event."
        raise ArgumentValueError("digits", message)
    digits = digits.select_rows(INDEX_BY_VXD_ID[digits.sensor_id] < N_SENSORS)
    counter = SummaryCounter()
    counter.add(digits)
    occupancies = _list_occupancies(counter, sensors, 1)
    smallest = counter.smallest_charge or READOUT_THRESHOLD_ADU
    cut = READOUT_THRESHOLD_ADU if compare_geant4 and smallest < READOUT_THRESHOLD_ADU else 1
    figure = Figure(figsize=_SIZE_INCHES, dpi=DPI, layout="constrained")
    figure.suptitle(title, parse_math=False)
    *layers, bars = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 0.55))
    for axes, layer in zip(layers, LADDERS_OF_LAYER, strict=True):
        points = _draw_layer(axes, digits, layer, occupancies)
    bar = figure.colorbar(
        points,
        ax=layers,
        location="bottom",
        label="charge (ADU)",
        ticks=choose_charge_ticks(digits.charge),
        format="%d",
        fraction=0.03,
        pad=0.01,
    )
    bar.ax.minorticks_off()
    _draw_spectrum(layers[0].inset_axes(_SPECTRUM_PLACE), digits)
    _draw_occupancies(bars, _list_occupancies(counter, sensors, cut), compare_geant4=compare_geant4)
    of_cut = f",\n{cut} ADU or more" if cut > 1 else ""
    bars.set_title(f"occupancy of each sensor{of_cut}", fontsize="medium")
    return figure


def _list_occupancies(counter: SummaryCounter, sensors: Sequence[Sensor], min_charge: int) -> NDArray[np.float64]:
    """List the occupancies of all sensors in one event; NaN if a sensor was not generated."""
    parts = counter.summarise_sensors(1, min_charge=min_charge)
    return np.array([part.occupancy if each in sensors else np.nan for each, part in zip(SENSORS, parts, strict=True)])


def _draw_layer(axes: Axes, digits: Digits, layer: int, occupancies: NDArray[np.float64]) -> PathCollection:
    sensors = select_layer(layer)
    index = INDEX_BY_VXD_ID[digits.sensor_id]
    chosen = np.isin(index, [sensor.index for sensor in sensors])
    norm, colours = choose_charge_colours(digits.charge)  # one scale for both layers
    points = axes.scatter(
        _FIRST_COLUMNS[index[chosen]] + digits.v_cell[chosen],
        _FIRST_ROWS[index[chosen]] + digits.u_cell[chosen],
        c=digits.charge[chosen],
        norm=norm,
        cmap=colours,
        s=_POINT_AREA,
        marker="s",
        linewidths=0,
        rasterized=True,
    )
    for sensor in sensors:
        _draw_frame(axes, sensor, occupancies[sensor.index])
    # The same limits for both layers: the densities of their points can be compared.
    axes.set(xlim=(0, _FIRST_COLUMNS.max() + N_V_CELLS), ylim=(0, _FIRST_ROWS.max() + _LADDER_PITCH))
    axes.set_xticks([*_V_TICKS, *(_SENSOR_PITCH + _V_TICKS)], [*map(str, _V_TICKS)] * SENSORS_PER_LADDER)
    ladders = np.arange(LADDERS_OF_LAYER[layer])
    axes.set_yticks(ladders * _LADDER_PITCH + N_U_CELLS / 2, [str(1 + ladder) for ladder in ladders])
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="sensor 1: v cell                sensor 2: v cell", ylabel=f"ladder ({N_U_CELLS} u cells each)")
    name = f"layer {layer}: {_describe_layer(int(chosen.sum()), occupancies[[sensor.index for sensor in sensors]])}"
    middle, top = axes.get_xlim()[1] / 2, len(ladders) * _LADDER_PITCH
    axes.text(middle, top, name, ha="center", va="bottom", color=COLOUR_OF_LAYER[layer], fontweight="bold")
    return points


def _describe_layer(n_digits: int, occupancies: NDArray[np.float64]) -> str:
    generated = occupancies[~np.isnan(occupancies)]
    if not len(generated):
        return "not generated"
    some = "" if len(generated) == len(occupancies) else f"{len(generated)} of {len(occupancies)} sensors, "
    return f"{some}{n_digits:,} digits, occupancy {100 * generated.mean():.2f} %"


def _draw_frame(axes: Axes, sensor: Sensor, occupancy: float) -> None:
    """Draw the edges of a sensor, its name and its occupancy; NaN if it was not generated."""
    from matplotlib.patches import Rectangle

    left, bottom = _FIRST_COLUMNS[sensor.index], _FIRST_ROWS[sensor.index]
    hatch = "////" if np.isnan(occupancy) else None
    axes.add_patch(Rectangle((left, bottom), N_V_CELLS, N_U_CELLS, hatch=hatch, facecolor="none", edgecolor="0.7"))
    text = "not generated" if np.isnan(occupancy) else f"{100 * occupancy:.2f} %"
    axes.text(left, bottom + N_U_CELLS, str(sensor), fontsize=_LABEL_SIZE, va="bottom")
    axes.text(left + N_V_CELLS, bottom + N_U_CELLS, text, fontsize=_LABEL_SIZE, va="bottom", ha="right")


def _draw_spectrum(axes: Axes, digits: Digits) -> None:
    counts = np.bincount(digits.charge, minlength=MAX_CHARGE_ADU + 1)[1:]
    axes.stairs(counts, np.arange(MAX_CHARGE_ADU + 1) + 0.5, linewidth=1.2)
    axes.set(xlabel="charge (ADU)", ylabel="digits / ADU", xlim=(0.5, MAX_CHARGE_ADU + 0.5))
    if counts.any():
        axes.set_yscale("log")
    mean = f", mean {digits.charge.mean():.1f} ADU" if len(digits) else ""
    axes.set_title(f"charge spectrum{mean}", fontsize="medium")


def _draw_occupancies(axes: Axes, occupancies: NDArray[np.float64], *, compare_geant4: bool) -> None:
    places = np.arange(N_SENSORS) + 2 * (LAYER_OF_SENSOR - 1)  # a gap separates the layers
    for layer, colour in COLOUR_OF_LAYER.items():
        of_layer = layer == LAYER_OF_SENSOR
        axes.barh(places[of_layer], 100 * np.nan_to_num(occupancies[of_layer]), color=colour)
        if compare_geant4:
            ends = places[of_layer][[0, -1]] + (-0.5, 0.5)
            axes.vlines(100 * GEANT4_OCCUPANCIES[f"layer {layer}"], *ends, color="black", linestyle="--")
    axes.set_yticks(places, [*map(str, SENSORS)])
    axes.tick_params(axis="y", length=0, labelsize=_LABEL_SIZE)
    axes.margins(y=0.01)
    legend = f"\ndashed: Geant4, layer mean,\n{READOUT_THRESHOLD_ADU} ADU or more" if compare_geant4 else ""
    axes.set(xlabel=f"occupancy (%){legend}", ylabel="sensor")
