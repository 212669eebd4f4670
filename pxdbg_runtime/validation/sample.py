"""What is counted of a sample of digits, in one pass over its events."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, PIXELS_PER_SENSOR, SENSORS
from pxdbg_runtime.validation.clusters import find_clusters
from pxdbg_runtime.validation.marginals import MAX_CHARGE, OCCUPANCY_BINS, OCCUPANCY_RANGE, Marginals
from pxdbg_runtime.validation.repeats import RepeatFinder, Repeats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats import DigitReader
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["CLUSTER_CHARGE_BIN_ADU", "MAX_CLUSTER_SIZE", "ClusterCounts", "Sample", "count_events", "count_sample"]

MAX_CLUSTER_SIZE: Final = 500
"""Largest size with a bin of its own; the last bin takes what is larger."""
CLUSTER_CHARGE_BIN_ADU: Final = 1
_MAX_CLUSTER_CHARGE: Final = 8000
"""ADU; the last bin takes what is more."""
_HALVES: Final = (0, 1)
_FIRST_PIXEL_OF: Final = np.zeros(1 << 16, dtype=np.int64)
"""Number of the first pixel of each sensor, by VxdID."""
for _sensor in SENSORS:
    _FIRST_PIXEL_OF[_sensor.vxd_id] = _sensor.index * PIXELS_PER_SENSOR


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
    jobs : tuple of Provenance
        How the digits of each file of the sample were made; empty if that is unknown.
    min_charge : int
        The cut, ADU: hits of less were dropped before all else.
    event_numbers : ndarray of int64, shape (events,)
        A number comes again where jobs of other seeds are one sample.
    digits_before_cut, digits_below_cut : int
    smallest_charge : int or None
        Of a hit before the cut, ADU; None if there is none.
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
    jobs: tuple[Provenance, ...]
    min_charge: int
    event_numbers: NDArray[np.int64]
    digits_before_cut: int
    digits_below_cut: int
    smallest_charge: int | None
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
        threshold = self.jobs[0].min_charge if self.jobs else self.smallest_charge
        if threshold is None or threshold >= self.min_charge:
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


def count_sample(reader: DigitReader, name: str, min_charge: int) -> Sample:
    """Count a sample of digits, event by event.

    Parameters
    ----------
    reader : DigitReader
        Of one file or several.
    name : str
        Of the sample.
    min_charge : int
        The cut, ADU.

    Raises
    ------
    DigitFileError
        If a file is damaged, has digits twice or out of order, or the sample has none that passes the cut.
    ArgumentValueError
        If the sample was made with a larger threshold than the cut.
    """
    return count_events(reader.read_events(), reader, name, min_charge)


def count_events(events: Iterable[tuple[int, Digits]], reader: DigitReader, name: str, min_charge: int) -> Sample:
    """Count events that come from elsewhere, such as through a progress bar; else as `count_sample`."""
    for how in reader.jobs:
        _check_threshold(f"{reader.path} was made with a threshold of {how.min_charge} ADU", how.min_charge, min_charge)
    numbers: list[int] = []
    hits, charge_sums = _ImageCounts(), _ImageCounts()
    charge_counts = np.zeros((2, MAX_CHARGE + 1), dtype=np.int64)
    hit_map = np.zeros(N_SENSORS * PIXELS_PER_SENSOR, dtype=np.int64)
    sizes = np.zeros((2, MAX_CLUSTER_SIZE + 1), dtype=np.int64)
    cluster_charges = np.zeros((2, _MAX_CLUSTER_CHARGE + 1), dtype=np.int64)
    repeats = RepeatFinder()
    shown = np.zeros(N_SENSORS * PIXELS_PER_SENSOR, dtype=np.uint8)
    n_before = n_below = 0
    smallest = MAX_CHARGE + 1
    for event, digits in events:
        half = event % 2
        numbers.append(event)
        pixel, charge = _pixels(digits), digits.charge
        passed = charge >= min_charge
        n_before += len(charge)
        n_below += len(charge) - int(passed.sum())
        if len(charge):
            smallest = min(smallest, int(charge.min()))
        pixel, charge = pixel[passed], charge[passed]
        sensor, cell = np.divmod(pixel, PIXELS_PER_SENSOR)
        u_cell, v_cell = np.divmod(cell, N_V_CELLS)
        charge_counts[half] += np.bincount(charge, minlength=MAX_CHARGE + 1)
        hits.append(np.bincount(sensor, minlength=N_SENSORS))
        charge_sums.append(np.bincount(sensor, weights=charge, minlength=N_SENSORS))
        hit_map[pixel] += 1  # no pixel comes twice in an event
        if len(pixel) and not shown.any():
            shown[pixel] = charge
        # One row more a sensor keeps the clusters of neighbouring images apart.
        each_size, each_charge = find_clusters(sensor * (N_U_CELLS + 1) + u_cell, v_cell, charge)
        sizes[half] += _binned(each_size, MAX_CLUSTER_SIZE)
        cluster_charges[half] += _binned(each_charge, _MAX_CLUSTER_CHARGE)
        repeats.add(sensor, u_cell, v_cell, charge)
    if not reader.jobs and n_before:
        # Nothing says what the threshold was: the smallest charge stands for it.
        _check_threshold(f"{reader.path} holds no charge below {smallest} ADU", smallest, min_charge)
    if n_before == n_below:
        message = f"{reader.path} holds no digit of {min_charge} ADU or more: there is nothing to compare."
        raise DigitFileError(reader.path, message)
    shape = (N_SENSORS, N_U_CELLS, N_V_CELLS)
    even, odd = (ClusterCounts(sizes=sizes[half], charges=cluster_charges[half]) for half in _HALVES)
    return Sample(
        name=name,
        jobs=reader.jobs,
        min_charge=min_charge,
        event_numbers=np.array(numbers, dtype=np.int64),
        digits_before_cut=n_before,
        digits_below_cut=n_below,
        smallest_charge=smallest if n_before else None,
        charge_counts=charge_counts,
        hits=hits.to_array(),
        charge_sums=charge_sums.to_array(),
        hit_map=hit_map.reshape(shape),
        clusters=(even, odd),
        repeats=repeats.found(),
        shown_images=shown.reshape(shape),
    )


class _ImageCounts:
    """Forty numbers an event, in memory that grows with the events that come, not with those that a file tells of."""

    def __init__(self) -> None:
        self._values = array.array("q")

    def append(self, of_sensors: NDArray[np.int64] | NDArray[np.float64]) -> None:
        self._values.frombytes(of_sensors.astype(np.int64).tobytes())

    def to_array(self) -> NDArray[np.int64]:
        return np.array(self._values, dtype=np.int64).reshape(-1, N_SENSORS)


def _check_threshold(fact: str, threshold: int, min_charge: int) -> None:
    """Refuse a cut below a threshold, of which the message states a fact first."""
    if threshold > min_charge:
        message = f"{fact}, so it cannot be cut at {min_charge} ADU: ask for --min-charge {threshold}."
        raise ArgumentValueError("min_charge", message)


def _pixels(digits: Digits) -> NDArray[np.int64]:
    """Give an event's pixels, numbered through sensor by sensor and row by row."""
    pixel = _FIRST_PIXEL_OF[digits.sensor_id]
    pixel += digits.u_cell.astype(np.int64) * N_V_CELLS
    pixel += digits.v_cell
    return pixel


def _binned(values: NDArray[np.int64], largest: int) -> NDArray[np.int64]:
    return np.bincount(np.minimum(values, largest), minlength=largest + 1)
