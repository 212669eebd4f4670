"""Histograms of digits, as `hist.Hist`, filled event by event.

Each function takes `Digits`, or an iterable of them with one item an event, such as ``open_events(path)``. An item of
several events is an `ArgumentValueError`. Events without digits count where the file names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import (
    INDEX_BY_VXD_ID,
    MAX_CHARGE_ADU,
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    PIXELS_PER_SENSOR,
    SENSORS,
    SensorLike,
    sensor_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hist import Hist

    Events = Digits | Iterable[Digits]

__all__ = ["MAX_CLUSTER_SIZE", "fill_charges", "fill_cluster_sizes", "fill_hit_map", "fill_occupancies", "split_events"]

MAX_CLUSTER_SIZE: Final = 40
"""Clusters of more digits are in the overflow bin."""


def split_events(events: Events) -> Iterator[Digits]:
    """Yield the digits of one event after the other; `Digits` without any are one event without digits."""
    if not isinstance(events, Digits):
        for each in events:
            if np.any(each.event != each.event[:1]):
                message = "events must be Digits, or hold one event in each item, but one item has digits of several."
                raise ArgumentValueError("events", message)
            yield each
        return
    ordered = events.select_rows(np.argsort(events.event, kind="stable"))
    starts = np.flatnonzero(np.diff(ordered.event)) + 1
    for start, stop in zip([0, *starts], [*starts, len(ordered)], strict=True):
        yield ordered.select_rows(slice(start, stop))


def fill_charges(events: Events) -> Hist[Any]:
    """Count digits by their charge.

    Parameters
    ----------
    events : Digits or iterable of Digits
        Digits of other detectors are ignored.

    Returns
    -------
    hist.Hist
        Axis ``charge``, 1 to 255 ADU; counts.

    Raises
    ------
    MissingPackageError
        If hist is not installed.
    """
    hist = _import_hist()
    axis = hist.axis.Integer(1, MAX_CHARGE_ADU + 1, name="charge", label="charge (ADU)", flow=False)
    result: Hist[Any] = hist.Hist(axis, storage=hist.storage.Int64())
    for digits in split_events(events):
        result.fill(charge=digits.charge[INDEX_BY_VXD_ID[digits.sensor_id] < N_SENSORS])
    return result


def fill_occupancies(events: Events, *, min_charge: int = 1) -> Hist[Any]:
    """Average the occupancy of each sensor over the events.

    Parameters
    ----------
    events : Digits or iterable of Digits
        Digits of other detectors are ignored.
    min_charge : int
        Cut in ADU: digits below it are left out.

    Returns
    -------
    hist.Hist
        Axis ``sensor``, the forty names; means over the events in percent of the pixels, 0 to 100. ``variances()`` are
        those of the means, from the spread over events; NaN for one event.

    Raises
    ------
    MissingPackageError
        As `fill_charges`.
    ArgumentTypeError, ArgumentValueError
        If `min_charge` is not an integer from 1 to 255.
    """
    hist = _import_hist()
    cut = check_integer("min_charge", min_charge, 1, MAX_CHARGE_ADU, unit="ADU")
    names = [str(sensor) for sensor in SENSORS]
    axis = hist.axis.StrCategory(names, name="sensor", label="sensor", flow=False)
    result: Hist[Any] = hist.Hist(axis, storage=hist.storage.Mean())
    for digits in split_events(events):
        index = INDEX_BY_VXD_ID[digits.sensor_id[digits.charge >= cut]]
        n_digits = np.bincount(index, minlength=N_SENSORS)[:N_SENSORS]
        result.fill(sensor=names, sample=100 * n_digits / PIXELS_PER_SENSOR)
    return result


def fill_hit_map(events: Events, sensor: SensorLike, *, weigh_by_charge: bool = False) -> Hist[Any]:
    """Count the digits of one sensor by their cells.

    Parameters
    ----------
    events : Digits or iterable of Digits
    sensor : Sensor, str or int
        As `sensor_of` takes it.
    weigh_by_charge : bool
        Whether to sum charges instead.

    Returns
    -------
    hist.Hist
        Axes ``v_cell``, 0 to 767, and ``u_cell``, 0 to 249; counts, or ADU.

    Raises
    ------
    MissingPackageError
        As `fill_charges`.
    ArgumentTypeError, ArgumentValueError
        If there is no such sensor.
    """
    hist = _import_hist()
    chosen = sensor_of(sensor)
    v_axis = hist.axis.Integer(0, N_V_CELLS, name="v_cell", label="v cell", flow=False)
    u_axis = hist.axis.Integer(0, N_U_CELLS, name="u_cell", label="u cell", flow=False)
    result: Hist[Any] = hist.Hist(v_axis, u_axis, storage=hist.storage.Double())
    for digits in split_events(events):
        selected = digits.of_sensor(chosen)
        weight = selected.charge.astype(np.float64) if weigh_by_charge else None
        result.fill(v_cell=selected.v_cell, u_cell=selected.u_cell, weight=weight)
    return result


def fill_cluster_sizes(events: Events) -> Hist[Any]:
    """Count 8-connected clusters by their number of digits.

    Parameters
    ----------
    events : Digits or iterable of Digits
        In any order. Digits of other detectors are ignored; no pixel of an event may come twice.

    Returns
    -------
    hist.Hist
        Axis ``size``, 1 to 40 digits, and an overflow bin; counts.

    Raises
    ------
    MissingPackageError
        As `fill_charges`.
    """
    # numba, which the command must not load earlier.
    from pxdbg_runtime.digitisation.clusters import ROWS_PER_IMAGE, number_clusters

    hist = _import_hist()
    axis = hist.axis.Integer(
        1, MAX_CLUSTER_SIZE + 1, name="size", label="cluster size (digits)", underflow=False, overflow=True
    )
    result: Hist[Any] = hist.Hist(axis, storage=hist.storage.Int64())
    for digits in split_events(events):
        index = INDEX_BY_VXD_ID[digits.sensor_id]
        row = index * ROWS_PER_IMAGE + digits.u_cell
        column = digits.v_cell.astype(np.int64)
        order = np.lexsort((column, row))
        order = order[index[order] < N_SENSORS]
        number = np.empty(len(order), dtype=np.int64)
        number_clusters(row[order], column[order], number)
        result.fill(size=np.bincount(number))
    return result


def _import_hist() -> Any:  # noqa: ANN401  # a module
    return require("hist", extra="plot", purpose="A histogram")
