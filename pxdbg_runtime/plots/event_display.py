"""Draw one event: both layers unrolled, ladder by ladder, and the charge spectrum."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.formats.atomic_write import atomic_write
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.plots.summary import LAYER_BY_VXD_ID, summarise
from pxdbg_runtime.sensors import (
    LADDERS_OF_LAYER,
    MAX_CHARGE_ADU,
    N_U_CELLS,
    N_V_CELLS,
    SENSORS,
    SENSORS_PER_LADDER,
    select_layer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.sensors import Sensor

__all__ = ["draw_event", "save_event", "save_figure"]

_SIZE_INCHES: Final = (12.0, 8.0)
_DPI: Final = 110
_POINT_AREA: Final = 1.2
_EXCLUDED_FORMATS: Final = {"pgf", "raw", "rgba"}
"""Formats of matplotlib that need LaTeX, or are bare pixel values."""


def save_event(digits: Digits, path: Path, *, title: str, sensors: Sequence[Sensor] = SENSORS) -> None:
    """Draw one event and save the picture.

    Parameters
    ----------
    digits : Digits
        Of one event.
    path : Path
        Ends in .png, .pdf, .svg or another format of matplotlib.
    title : str
    sensors : sequence of Sensor
        The sensors of the event: another one was not generated, which is not the same as empty.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    ArgumentValueError
        If matplotlib does not know the format.
    OutputError
        If the file cannot be written.
    """
    save_figure(draw_event(digits, title=title, sensors=sensors), path)


def save_figure(figure: Figure, path: Path) -> None:
    """Save a figure in the format of the suffix, as a whole or not at all; raises as `save_event`."""
    formats = figure.canvas.get_supported_filetypes().keys() - _EXCLUDED_FORMATS
    file_format = path.suffix.removeprefix(".").lower()
    if file_format not in formats:
        message = f"{path} must end in a picture format: expected one of .{', .'.join(sorted(formats))}."
        raise ArgumentValueError("output", message)
    # In memory first: an error of matplotlib's fonts or caches is not an error of the file.
    picture = io.BytesIO()
    figure.savefig(picture, format=file_format, dpi=_DPI)
    with atomic_write(path) as partial:
        partial.write_bytes(picture.getbuffer())


def draw_event(digits: Digits, *, title: str, sensors: Sequence[Sensor] = SENSORS) -> Figure:
    """Draw one event.

    Each layer is unrolled: its ladders one above the other, the two sensors of a ladder side by side. Every hit is
    drawn at its cell, coloured by its charge. Positions are cell numbers, not lengths.

    Parameters
    ----------
    digits : Digits
        Of one event.
    title : str
    sensors : sequence of Sensor
        As of `save_event`.

    Raises
    ------
    MissingPackageError
        If matplotlib is not installed.
    """
    require("matplotlib", extra="plot", purpose="A picture")
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    figure.suptitle(title, parse_math=False)
    grid = figure.add_gridspec(1, 3, width_ratios=(1.0, 1.0, 0.75))
    for column, layer in enumerate(LADDERS_OF_LAYER):
        axes = figure.add_subplot(grid[0, column])
        points = _draw_layer(axes, digits, layer, sensors)
    figure.colorbar(points, ax=figure.axes, location="bottom", label="charge (ADU)", fraction=0.03, pad=0.01)
    _draw_spectrum(figure.add_subplot(grid[0, 2]), digits)
    return figure


def _draw_layer(axes: Axes, digits: Digits, layer: int, sensors: Sequence[Sensor]) -> PathCollection:
    from matplotlib.colors import LogNorm

    n_ladders = LADDERS_OF_LAYER[layer]
    first_column, first_row = np.zeros((2, len(LAYER_BY_VXD_ID)), dtype=np.int64)
    for sensor in SENSORS:
        first_column[sensor.vxd_id] = (sensor.sensor - 1) * N_V_CELLS
        first_row[sensor.vxd_id] = (sensor.ladder - 1) * N_U_CELLS
    chosen = LAYER_BY_VXD_ID[digits.sensor_id] == layer
    sensor_id = digits.sensor_id[chosen]
    points = axes.scatter(
        first_column[sensor_id] + digits.v_cell[chosen],
        first_row[sensor_id] + digits.u_cell[chosen],
        c=digits.charge[chosen],
        norm=LogNorm(1, MAX_CHARGE_ADU),
        s=_POINT_AREA,
        marker="s",
        linewidths=0,
        rasterized=True,
    )
    axes.set(xlim=(0, SENSORS_PER_LADDER * N_V_CELLS), ylim=(0, n_ladders * N_U_CELLS))
    for ladder in range(1, n_ladders):
        axes.axhline(ladder * N_U_CELLS, color="0.8", linewidth=0.5, zorder=0)
    axes.axvline(N_V_CELLS, color="0.8", linewidth=0.5, zorder=0)
    axes.set_yticks(
        [(ladder + 0.5) * N_U_CELLS for ladder in range(n_ladders)],
        [str(ladder) for ladder in range(1, n_ladders + 1)],
    )
    axes.set_xticks(
        [0, N_V_CELLS // 2, N_V_CELLS, N_V_CELLS + N_V_CELLS // 2],
        ["0", str(N_V_CELLS // 2), "0", str(N_V_CELLS // 2)],
    )
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("sensor 1: v cell                sensor 2: v cell")
    axes.set_ylabel(f"ladder ({N_U_CELLS} u cells each)")
    axes.set_title(f"layer {layer}: {_describe_layer(digits, layer, sensors)}", fontsize="medium")
    return points


def _describe_layer(digits: Digits, layer: int, sensors: Sequence[Sensor]) -> str:
    of_layer = [sensor for sensor in sensors if sensor.layer == layer]
    if not of_layer:
        return "not generated"
    n_sensors = len(select_layer(layer))
    some = "" if len(of_layer) == n_sensors else f"{len(of_layer)} of {n_sensors} sensors, "
    (part,) = summarise(digits.select_rows(LAYER_BY_VXD_ID[digits.sensor_id] == layer), 1, of_layer)
    return f"{some}{part.digits_per_event:,.0f} digits, occupancy {100 * part.occupancy:.2f} %"


def _draw_spectrum(axes: Axes, digits: Digits) -> None:
    counts = np.bincount(digits.charge, minlength=MAX_CHARGE_ADU + 1)[1:]
    axes.stairs(counts, np.arange(MAX_CHARGE_ADU + 1) + 0.5, linewidth=1.2)
    axes.set(xlabel="charge (ADU)", ylabel="digits / ADU", xlim=(0.5, MAX_CHARGE_ADU + 0.5))
    if counts.any():
        axes.set_yscale("log")
    mean = f", mean {digits.charge.mean():.1f} ADU" if len(digits) else ""
    axes.set_title(f"charge spectrum{mean}", fontsize="medium")
