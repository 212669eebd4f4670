"""What is counted of a sample of digits, in one pass over its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, PIXELS_PER_SENSOR, SENSORS
from pxdbg_runtime.validation.clusters import find_clusters
from pxdbg_runtime.validation.marginals import MAX_CHARGE, OCCUPANCY_BINS, OCCUPANCY_RANGE, Marginals
from pxdbg_runtime.validation.repeats import RepeatFinder, Repeats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from pxdbg_runtime.digit_files import EventReader
    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.provenance import HowMade

__all__ = ["CLUSTER_CHARGE_BIN_ADU", "MAX_CLUSTER_SIZE", "ClusterCounts", "Sample", "count_events", "count_sample"]

MAX_CLUSTER_SIZE: Final = 500
"""Largest size with a bin of its own; the last bin takes what is larger."""
CLUSTER_CHARGE_BIN_ADU: Final = 1
_MAX_CLUSTER_CHARGE: Final = 8000
"""ADU; the last bin takes what is more."""
_HALVES: Final = (0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterCounts:
    """Histograms of 8-connected clusters.

    Attributes
    ----------
    sizes : ndarray of int64, shape (501,)
        Clusters of so many hits; the last takes what is larger.
    charges : ndarray of int64, shape (8001,)
        Clusters of so many ADU; the last takes what is more.
    """

    sizes: NDArray[np.int64]
    charges: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """What was counted of a sample, after the cut unless it says otherwise.

    Attributes
    ----------
    name : str
    how_made : HowMade
    min_charge : int
        The cut, ADU: hits of less were dropped before all else.
    event_numbers : ndarray of int64, shape (events,)
    digits_before_cut, digits_below_cut : int
    charge_counts : ndarray of int64, shape (2, 256)
        Hits of each charge, in the events of even number and of odd.
    hits : ndarray of int64, shape (events, 40)
        Hits of each image.
    charge_sums : ndarray of int64, shape (events, 40)
        ADU.
    hit_map : ndarray of int64, shape (40, 250, 768)
        Events in which each pixel fired.
    clusters : tuple of ClusterCounts
        Of the events of even number and of odd.
    repeats : Repeats
    shown_images : ndarray of uint8, shape (40, 250, 768)
        The charges of the first event that has a hit.
    """

    name: str
    how_made: HowMade
    min_charge: int
    event_numbers: NDArray[np.int64]
    digits_before_cut: int
    digits_below_cut: int
    charge_counts: NDArray[np.int64]
    hits: NDArray[np.int64]
    charge_sums: NDArray[np.int64]
    hit_map: NDArray[np.int64]
    clusters: tuple[ClusterCounts, ClusterCounts]
    repeats: Repeats
    shown_images: NDArray[np.uint8]

    @property
    def below_cut_share(self) -> float | None:
        """Share of all pixels with a charge from 1 up to the cut; None if the sample was made without such hits."""
        if self.how_made.min_charge >= self.min_charge:
            return None
        return self.digits_below_cut / (self.hits.size * PIXELS_PER_SENSOR)

    @property
    def occupancy(self) -> NDArray[np.float64]:
        """Share of the pixels of each image that were hit, shape (events, 40)."""
        return np.asarray(self.hits / PIXELS_PER_SENSOR)

    @property
    def profiles(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hits of each u cell and of each v cell, over all sensors and events."""
        of_pixel = self.hit_map.sum(axis=0)
        return of_pixel.sum(axis=1), of_pixel.sum(axis=0)

    @property
    def all_clusters(self) -> ClusterCounts:
        """Clusters of all events."""
        even, odd = self.clusters
        return ClusterCounts(sizes=even.sizes + odd.sizes, charges=even.charges + odd.charges)

    def marginals(self) -> Marginals:
        """Bin the sample as the public marginals are binned."""
        return self._marginals(self.name, self.charge_counts.sum(axis=0), np.ones(len(self.hits), dtype=bool))

    def half_marginals(self) -> tuple[Marginals, Marginals] | None:
        """Bin the events of even number, and those of odd; None if there are not both."""
        chosen = [self.event_numbers % 2 == half for half in _HALVES]
        if not all(each.any() for each in chosen):
            return None
        names = (f"{self.name}, even events", f"{self.name}, odd events")
        even, odd = (self._marginals(names[half], self.charge_counts[half], chosen[half]) for half in _HALVES)
        return even, odd

    def _marginals(self, name: str, charge_counts: NDArray[np.int64], events: NDArray[np.bool_]) -> Marginals:
        hits, sums = self.hits[events], self.charge_sums[events]
        occupancy = hits / PIXELS_PER_SENSOR
        counts, _edges = np.histogram(occupancy, bins=OCCUPANCY_BINS, range=(0.0, OCCUPANCY_RANGE))
        filled = hits > 0
        means = np.divide(sums, hits, out=np.zeros(hits.shape), where=filled)
        n_filled = filled.sum(axis=0)
        # Sensors without any hit have no mean charge.
        mean_charge = np.divide(means.sum(axis=0), n_filled, out=np.full(N_SENSORS, np.nan), where=n_filled > 0)
        return Marginals(
            name=name,
            min_charge=self.min_charge,
            empty_pixels=hits.size * PIXELS_PER_SENSOR - int(hits.sum()),
            charge_counts=charge_counts[self.min_charge :],
            occupancy_counts=counts.astype(np.int64),
            occupancy_overflow=int((occupancy > OCCUPANCY_RANGE).sum()),
            sensor_mean_occupancy=occupancy.mean(axis=0),
            sensor_mean_charge=mean_charge,
        )


def count_sample(reader: EventReader, name: str, min_charge: int) -> Sample:
    """Count a file of digits, event by event.

    Parameters
    ----------
    reader : EventReader
        Of the file.
    name : str
        Of the sample.
    min_charge : int
        The cut, ADU.

    Raises
    ------
    DigitFileError
        If the file is damaged, has digits twice or out of order, or none that passes the cut.
    ArgumentValueError
        If the file was made with a larger threshold than the cut.
    """
    return count_events(reader, reader, name, min_charge)


def count_events(events: Iterable[Digits], reader: EventReader, name: str, min_charge: int) -> Sample:
    """Count events that come from elsewhere, such as through a progress bar; else as `count_sample`."""
    how = reader.how_made
    if how.min_charge > min_charge:
        message = (
            f"{reader.path} was made with a threshold of {how.min_charge} ADU, so it cannot be cut at {min_charge} ADU: "
            f"ask for --min-charge {how.min_charge}."
        )
        raise ArgumentValueError("min_charge", message)
    charge_counts = np.zeros((2, MAX_CHARGE + 1), dtype=np.int64)
    hits, charge_sums = np.zeros((2, how.events, N_SENSORS), dtype=np.int64)
    hit_map = np.zeros(N_SENSORS * PIXELS_PER_SENSOR, dtype=np.int64)
    sizes = np.zeros((2, MAX_CLUSTER_SIZE + 1), dtype=np.int64)
    cluster_charges = np.zeros((2, _MAX_CLUSTER_CHARGE + 1), dtype=np.int64)
    repeats = RepeatFinder()
    shown = np.zeros(N_SENSORS * PIXELS_PER_SENSOR, dtype=np.uint8)
    n_before = n_below = 0
    for place, (pixel, all_charges) in enumerate(_pixels(events, reader)):
        half = (how.first_event + place) % 2
        passed = all_charges >= min_charge
        n_before += len(all_charges)
        n_below += len(all_charges) - int(passed.sum())
        pixel, charge = pixel[passed], all_charges[passed]  # noqa: PLW2901  # from here on after the cut
        sensor, cell = np.divmod(pixel, PIXELS_PER_SENSOR)
        u_cell, v_cell = np.divmod(cell, N_V_CELLS)
        charge_counts[half] += np.bincount(charge, minlength=MAX_CHARGE + 1)
        hits[place] = np.bincount(sensor, minlength=N_SENSORS)
        charge_sums[place] = np.bincount(sensor, weights=charge, minlength=N_SENSORS)
        hit_map[pixel] += 1  # no pixel comes twice in an event
        if len(pixel) and not shown.any():
            shown[pixel] = charge
        # One row more a sensor keeps the clusters of neighbouring images apart.
        each_size, each_charge = find_clusters(sensor * (N_U_CELLS + 1) + u_cell, v_cell, charge)
        sizes[half] += _binned(each_size, MAX_CLUSTER_SIZE)
        cluster_charges[half] += _binned(each_charge, _MAX_CLUSTER_CHARGE)
        repeats.add(sensor, u_cell, v_cell, charge)
    if not hits.any():
        message = f"{reader.path} holds no digit of {min_charge} ADU or more: there is nothing to compare."
        raise DigitFileError(reader.path, message)
    shape = (N_SENSORS, N_U_CELLS, N_V_CELLS)
    even, odd = (ClusterCounts(sizes=sizes[half], charges=cluster_charges[half]) for half in _HALVES)
    return Sample(
        name=name,
        how_made=how,
        min_charge=min_charge,
        event_numbers=np.arange(how.first_event, how.first_event + how.events),
        digits_before_cut=n_before,
        digits_below_cut=n_below,
        charge_counts=charge_counts,
        hits=hits,
        charge_sums=charge_sums,
        hit_map=hit_map.reshape(shape),
        clusters=(even, odd),
        repeats=repeats.found(),
        shown_images=shown.reshape(shape),
    )


def _pixels(events: Iterable[Digits], reader: EventReader) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Give each event's pixels, numbered through sensor by sensor and row by row, and their charges."""
    first_pixel_of = np.zeros(1 << 16, dtype=np.int64)
    for sensor in SENSORS:
        first_pixel_of[sensor.vxd_id] = sensor.index * PIXELS_PER_SENSOR
    for digits in events:
        pixel = first_pixel_of[digits.sensor_id] + digits.u_cell.astype(np.int64) * N_V_CELLS + digits.v_cell
        if np.any(np.diff(pixel) <= 0):
            message = f"{reader.path} holds digits twice, or not ordered by sensor, u cell, v cell: generate it again."
            raise DigitFileError(reader.path, message)
        yield pixel, digits.charge


def _binned(values: NDArray[np.int64], largest: int) -> NDArray[np.int64]:
    return np.bincount(np.minimum(values, largest), minlength=largest + 1)
