"""Tables of the forty sensors for ``pxdbg show``: alone, and beside a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from rich.table import Table

from pxdbg_runtime.sensors import LADDERS_OF_LAYER, SENSORS, SENSORS_PER_LADDER
from pxdbg_runtime.validation.sensor_scores import SensorScores, score_sensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.plots.summary import PartSummary

__all__ = ["SensorMeans", "build_comparison_table", "build_ladder_table", "list_means"]

_UNKNOWN: Final = "–"  # noqa: RUF001  # a dash, as printed


class SensorMeans(NamedTuple):
    """Means of the forty sensors, by sensor index.

    Attributes
    ----------
    occupancy : ndarray of float64, shape (40,)
        0 to 1.
    charge_adu : ndarray of float64, shape (40,)
        NaN for a sensor without a hit.
    """

    occupancy: NDArray[np.float64]
    charge_adu: NDArray[np.float64]


def list_means(parts: Sequence[PartSummary]) -> SensorMeans:
    """List the means of the forty sensors."""
    charges = [np.nan if part.mean_charge is None else part.mean_charge for part in parts]
    return SensorMeans(np.array([part.occupancy for part in parts]), np.array(charges))


def build_ladder_table(means: SensorMeans) -> Table:
    """Build a table with a row for each ladder number, and a column for each sensor of both layers' ladders."""
    columns = [(layer, 1 + sensor) for layer in LADDERS_OF_LAYER for sensor in range(SENSORS_PER_LADDER)]
    table = Table("ladder", *(f"layer {layer}, sensor {sensor}" for layer, sensor in columns))
    table.title, table.title_justify = "occupancy and mean charge (ADU) of each sensor", "left"
    index = {(each.layer, each.ladder, each.sensor): each.index for each in SENSORS}
    for ladder in range(1, 1 + max(LADDERS_OF_LAYER.values())):
        places = [index.get((layer, ladder, sensor)) for layer, sensor in columns]
        table.add_row(str(ladder), *("" if place is None else _format_sensor(means, place) for place in places))
    return table


def _format_sensor(means: SensorMeans, place: int) -> str:
    return f"{100 * means.occupancy[place]:.2f} %, {_format_charge(means.charge_adu[place])}"


def build_comparison_table(ours: SensorMeans, reference: SensorMeans, name: str, min_charge: int) -> Table:
    """Build a table with a row for each sensor: occupancy and mean charge, the reference's, and the deviations.

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
    for sensor in SENSORS:
        place = sensor.index
        table.add_row(
            str(sensor),
            f"{100 * ours.occupancy[place]:.3f} %",
            f"{100 * reference.occupancy[place]:.3f} %",
            _format_deviation(occupancy, place),
            _format_charge(ours.charge_adu[place]),
            _format_charge(reference.charge_adu[place]),
            _format_deviation(charge, place),
            end_section=sensor is SENSORS[-1] or SENSORS[place + 1].layer != sensor.layer,
        )
    of_scores = [("", "") if each is None else _format_scores(each) for each in (occupancy, charge)]
    for label, (of_occupancy, of_charge) in zip(("mean", "largest"), zip(*of_scores, strict=True), strict=True):
        table.add_row(label, "", "", of_occupancy, "", "", of_charge)
    return table


def _format_scores(scores: SensorScores) -> tuple[str, str]:
    """Format the mean of the deviations without their signs, and the largest."""
    return f"{scores.mean_percent:.1f} %", f"{scores.largest_percent:+.1f} %"


def _format_charge(charge_adu: float) -> str:
    return _UNKNOWN if np.isnan(charge_adu) else f"{charge_adu:.1f}"


def _format_deviation(scores: SensorScores | None, place: int) -> str:
    percent = np.nan if scores is None else scores.deviations_percent[place]
    return _UNKNOWN if np.isnan(percent) else f"{percent:+.1f} %"
