"""Tables of the forty sensors for ``pxdbg show``: alone, and beside a reference."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from rich.table import Table

from pxdbg_runtime.sensors import SENSORS
from pxdbg_runtime.validation.sensor_scores import SensorScores, score_sensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.plots.summary import PartSummary
    from pxdbg_runtime.sensors import Sensor

__all__ = ["SensorMeans", "build_comparison_table", "build_ladder_table", "list_means"]

_UNKNOWN: Final = "–"  # noqa: RUF001  # a dash, as printed


class SensorMeans(NamedTuple):
    """Means of the forty sensors, by sensor index; NaN for a sensor that was not generated.

    Attributes
    ----------
    occupancy : ndarray of float64, shape (40,)
        0 to 1.
    charge_adu : ndarray of float64, shape (40,)
        NaN for a sensor without a hit.
    """

    occupancy: NDArray[np.float64]
    charge_adu: NDArray[np.float64]


def list_means(parts: Sequence[PartSummary], sensors: Sequence[Sensor]) -> SensorMeans:
    """List the means of the forty sensors, of which some were generated."""
    occupancy, charge_adu = np.full((2, len(SENSORS)), np.nan)
    for sensor in sensors:
        part = parts[sensor.index]
        occupancy[sensor.index] = part.occupancy
        charge_adu[sensor.index] = np.nan if part.mean_charge is None else part.mean_charge
    return SensorMeans(occupancy, charge_adu)


def build_ladder_table(means: SensorMeans) -> Table:
    """Build a table with a row for each ladder number, and a column for each sensor number of each layer.

    Rows and columns without a generated sensor are left out.
    """
    cells = {
        (sensor.ladder, sensor.layer, sensor.sensor): f"{100 * occupancy:.2f} %, {_format_charge(charge_adu)}"
        for sensor, occupancy, charge_adu in zip(SENSORS, *means, strict=True)
        if not np.isnan(occupancy)
    }
    columns = sorted({key[1:] for key in cells})
    table = Table("ladder", *(f"layer {layer}, sensor {sensor}" for layer, sensor in columns))
    table.title, table.title_justify = "occupancy and mean charge (ADU) of each sensor", "left"
    for ladder in sorted({ladder for ladder, _layer, _sensor in cells}):
        table.add_row(str(ladder), *(cells.get((ladder, *column), "") for column in columns))
    return table


def build_comparison_table(ours: SensorMeans, reference: SensorMeans, name: str, min_charge: int) -> Table:
    """Build a table with a row for each generated sensor: its means, the reference's, and the deviations.

    Parameters
    ----------
    ours, reference : SensorMeans
    name : str
        Of the reference.
    min_charge : int
        The cut of both, ADU.
    """
    occupancy = score_sensors(ours.occupancy, reference.occupancy)
    charge = score_sensors(ours.charge_adu, reference.charge_adu)
    table = Table("sensor", "occupancy", name, "deviation", "charge", name, "deviation")
    table.title, table.title_justify = f"mean charges in ADU, hits of {min_charge} ADU or more", "left"
    generated = [sensor for sensor in SENSORS if not np.isnan(ours.occupancy[sensor.index])]
    for sensor, following in itertools.zip_longest(generated, generated[1:]):
        place = sensor.index
        table.add_row(
            str(sensor),
            _format_occupancy(ours.occupancy[place]),
            _format_occupancy(reference.occupancy[place]),
            _format_deviation(occupancy, place),
            _format_charge(ours.charge_adu[place]),
            _format_charge(reference.charge_adu[place]),
            _format_deviation(charge, place),
            end_section=following is None or following.layer != sensor.layer,
        )
    of_scores = [("", "") if each is None else _format_scores(each) for each in (occupancy, charge)]
    for label, (of_occupancy, of_charge) in zip(("mean", "largest"), zip(*of_scores, strict=True), strict=True):
        table.add_row(label, "", "", of_occupancy, "", "", of_charge)
    return table


def _format_scores(scores: SensorScores) -> tuple[str, str]:
    """Format the mean of the deviations without their signs, and the largest."""
    return f"{scores.mean_percent:.1f} %", f"{scores.largest_percent:+.1f} %"


def _format_occupancy(occupancy: float) -> str:
    return _UNKNOWN if np.isnan(occupancy) else f"{100 * occupancy:.3f} %"


def _format_charge(charge_adu: float) -> str:
    return _UNKNOWN if np.isnan(charge_adu) else f"{charge_adu:.1f}"


def _format_deviation(scores: SensorScores | None, place: int) -> str:
    percent = np.nan if scores is None else scores.deviations_percent[place]
    return _UNKNOWN if np.isnan(percent) else f"{percent:+.1f} %"
