"""Histograms and counts of a sample of digits, taken in one pass over its events."""

from __future__ import annotations

import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.sensors import (
    INDEX_BY_VXD_ID,
    MAX_CHARGE_ADU,
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    PIXELS_PER_SENSOR,
    SENSORS,
    describe_sensors,
)
from pxdbg_runtime.validation.features import FEATURES, ImageFeatures, compute_features, describe_clusters, divide
from pxdbg_runtime.validation.marginals import OCCUPANCY_BINS, OCCUPANCY_RANGE, Marginals
from pxdbg_runtime.validation.repeats import RepeatFinder, Repeats

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats import DigitReader
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["MAX_COUNTED_CLUSTER_SIZE", "ClusterCounts", "Sample", "SensorErrors", "count_events"]

MAX_COUNTED_CLUSTER_SIZE: Final = 500
_MAX_CLUSTER_CHARGE: Final = 8000
"""ADU."""
_SHAPE: Final = (N_SENSORS, N_U_CELLS, N_V_CELLS)


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterCounts:
    """Histograms of 8-connected clusters; the last bin includes all larger values.

    Attributes
    ----------
    sizes : ndarray of int64, shape (501,)
        Clusters by their number of hits.
    charges : ndarray of int64, shape (8001,)
        Clusters by their charge, ADU.
    large_sizes, large_charges : ndarray of int64
        The values in the last bins, one by one, in no order.
    """

    sizes: NDArray[np.int64]
    charges: NDArray[np.int64]
    large_sizes: NDArray[np.int64]
    large_charges: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SensorErrors:
    """Standard errors of the mean occupancy and the mean charge of each sensor; NaN where fewer than two images count.

    Attributes
    ----------
    occupancy : ndarray of float64, shape (40,)
    charge_adu : ndarray of float64, shape (40,)
    """

    occupancy: NDArray[np.float64]
    charge_adu: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Counts of a sample; all but `digits_before_cut` to `smallest_charge` are of hits that pass the cut.

    Attributes
    ----------
    name : str
    jobs : tuple of Provenance
        Provenance of each file of the sample; empty if unknown.
    min_charge : int
        The cut: hits below this charge, in ADU, are dropped.
    digits_before_cut, digits_below_cut : int
    smallest_charge : int or None
        Of all hits before the cut, ADU; None if there is none.
    event_numbers : ndarray of int64, shape (events,)
        Numbers repeat if the files of a sample have the same event numbers and different seeds.
    charge_counts : ndarray of int64, shape (2, 256)
        Hits of each charge, in the events of even number and of odd.
    hits : ndarray of int64, shape (events, 40)
        Hits of each image.
    charge_sums : ndarray of int64, shape (events, 40)
        Summed charge of each image, ADU.
    hit_map : ndarray of int64, shape (40, 250, 768)
        Events in which each pixel has a hit.
    clusters : tuple of ClusterCounts
        Of the events of even number and of odd.
    repeats : Repeats
    features : ImageFeatures
        4 kB an event.
    shown_images : ndarray of uint8, shape (40, 250, 768)
        The charges of the first event that has a hit.
    """

    name: str
    jobs: tuple[Provenance, ...]
    min_charge: int
    digits_before_cut: int
    digits_below_cut: int
    smallest_charge: int | None
    event_numbers: NDArray[np.int64]
    charge_counts: NDArray[np.int64]
    hits: NDArray[np.int64]
    charge_sums: NDArray[np.int64]
    hit_map: NDArray[np.int64]
    clusters: tuple[ClusterCounts, ClusterCounts]
    repeats: Repeats
    features: ImageFeatures
    shown_images: NDArray[np.uint8]

    @property
    def below_cut_share(self) -> float | None:
        """Share of all pixels with a charge below the cut, from 1 ADU on; None if the sample was made without some."""
        threshold = self.jobs[0].min_charge if self.jobs else self.smallest_charge
        if threshold != 1:
            return None
        return self.digits_below_cut / (self.hits.size * PIXELS_PER_SENSOR)

    @property
    def profiles(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hits of each u cell and of each v cell, over all sensors and events."""
        return self.hit_map.sum(axis=(0, 2)), self.hit_map.sum(axis=(0, 1))

    @property
    def all_clusters(self) -> ClusterCounts:
        """Clusters of all events."""
        even, odd = self.clusters
        return ClusterCounts(
            sizes=even.sizes + odd.sizes,
            charges=even.charges + odd.charges,
            large_sizes=np.concatenate([even.large_sizes, odd.large_sizes]),
            large_charges=np.concatenate([even.large_charges, odd.large_charges]),
        )

    @property
    def sensor_errors(self) -> SensorErrors:
        """Estimate the standard errors of the sensors' means from the spread over events."""
        return SensorErrors(
            occupancy=_average_events(self.hits / PIXELS_PER_SENSOR)[1],
            charge_adu=_average_events(divide(self.charge_sums, self.hits))[1],
        )

    def bin_marginals(self) -> Marginals:
        """Compute the marginals of all events, in the bins of the published ones."""
        return self._bin_events(self.charge_counts.sum(axis=0), np.ones(len(self.hits), dtype=bool))

    def bin_halves(self) -> tuple[Marginals, Marginals] | None:
        """Compute the marginals of the events of even number, and of those of odd; None if there are not both."""
        is_odd = self.event_numbers % 2 == 1
        if is_odd.all() or not is_odd.any():
            return None
        even, odd = self.charge_counts
        return self._bin_events(even, ~is_odd), self._bin_events(odd, is_odd)

    def split_features(self) -> tuple[ImageFeatures, ImageFeatures]:
        """Split the features into those of the events of even number, and of odd."""
        is_odd = self.event_numbers % 2 == 1
        even, odd = (
            ImageFeatures(self.event_numbers[chosen], self.features.values[chosen]) for chosen in (~is_odd, is_odd)
        )
        return even, odd

    def _bin_events(self, charge_counts: NDArray[np.int64], chosen: NDArray[np.bool_]) -> Marginals:
        hits, sums = self.hits[chosen], self.charge_sums[chosen]
        occupancy = hits / PIXELS_PER_SENSOR
        counts, _edges = np.histogram(occupancy, bins=OCCUPANCY_BINS, range=(0.0, OCCUPANCY_RANGE))
        mean_charge, _errors = _average_events(divide(sums, hits))
        return Marginals(
            name=self.name,
            min_charge=self.min_charge,
            empty_pixels=hits.size * PIXELS_PER_SENSOR - int(hits.sum()),
            charge_counts=charge_counts[self.min_charge :],
            occupancy_counts=counts.astype(np.int64),
            occupancy_overflow=int((occupancy > OCCUPANCY_RANGE).sum()),
            sensor_mean_occupancy=occupancy.mean(axis=0),
            sensor_mean_charge=mean_charge,
        )


def count_events(events: Iterable[tuple[int, Digits]], reader: DigitReader, name: str, min_charge: int) -> Sample:
    """Count a sample of digits, event by event.

    Parameters
    ----------
    events : iterable of (int, Digits)
        ``reader.read_events()``, or an iterator over it that reports progress.
    reader : DigitReader
        Of one file or several.
    name : str
        Of the sample.
    min_charge : int
        The cut, ADU.

    Raises
    ------
    DigitFileError
        If a file is damaged, contains digits twice or out of order, or no digit passes the cut.
    ArgumentValueError
        If the sample was made with a larger threshold than the cut, or has only some sensors.
    """
    for job in reader.jobs:
        if job.sensors is not None:
            message = (
                f"{reader.path} contains only {describe_sensors(job.generated_sensors)}, but a validation needs "
                f"{describe_sensors(SENSORS)}: generate the events without --sensors and --layer."
            )
            raise ArgumentValueError("digits", message)
        _check_threshold(f"{reader.path} was made with a threshold of {job.min_charge} ADU", job.min_charge, min_charge)
    counter = _Counter(min_charge)
    for event, digits in events:
        counter.add(event, digits)
    if not reader.jobs and counter.n_digits:
        # The smallest charge stands for the unknown threshold.
        smallest = counter.smallest_charge
        _check_threshold(f"{reader.path} holds no charge below {smallest} ADU", smallest, min_charge)
    if counter.n_digits == counter.n_below_cut:
        message = f"{reader.path} holds no digit of {min_charge} ADU or more: there is nothing to compare."
        raise DigitFileError(reader.path, message)
    return counter.build_sample(name, reader.jobs)


class _Counter:
    """Counts event after event; its memory grows with the events that are read, not with those that metadata claim."""

    def __init__(self, min_charge: int) -> None:
        self.n_digits = self.n_below_cut = 0
        self.smallest_charge = MAX_CHARGE_ADU + 1
        self._min_charge = min_charge
        self._events = array.array("q")
        self._hits = array.array("q")
        self._charge_sums = array.array("q")
        self._charge_counts = np.zeros((2, MAX_CHARGE_ADU + 1), dtype=np.int64)
        self._hit_map = np.zeros(N_SENSORS * PIXELS_PER_SENSOR, dtype=np.int64)
        self._sizes = np.zeros((2, MAX_COUNTED_CLUSTER_SIZE + 1), dtype=np.int64)
        self._cluster_charges = np.zeros((2, _MAX_CLUSTER_CHARGE + 1), dtype=np.int64)
        self._large_sizes = (array.array("q"), array.array("q"))
        self._large_charges = (array.array("q"), array.array("q"))
        self._features = array.array("f")
        self._repeats = RepeatFinder()
        self._shown = np.zeros(N_SENSORS * PIXELS_PER_SENSOR, dtype=np.uint8)

    def add(self, event: int, digits: Digits) -> None:
        charge = digits.charge
        passes = charge >= self._min_charge
        self.n_digits += len(charge)
        self.n_below_cut += len(charge) - int(passes.sum())
        self.smallest_charge = min(self.smallest_charge, int(charge.min(initial=MAX_CHARGE_ADU)))
        charge = charge[passes]
        u_cell, v_cell = digits.u_cell[passes].astype(np.int64), digits.v_cell[passes].astype(np.int64)
        sensor = INDEX_BY_VXD_ID[digits.sensor_id[passes]]
        pixel = sensor * PIXELS_PER_SENSOR + u_cell * N_V_CELLS + v_cell

        half = event % 2
        self._events.append(event)
        self._hits.frombytes(np.bincount(sensor, minlength=N_SENSORS).tobytes())
        sums = np.bincount(sensor, weights=charge, minlength=N_SENSORS)  # exact in float64
        self._charge_sums.frombytes(sums.astype(np.int64).tobytes())
        self._charge_counts[half] += np.bincount(charge, minlength=MAX_CHARGE_ADU + 1)
        self._hit_map[pixel] += 1  # an event has no pixel twice
        if len(pixel) and not self._shown.any():
            self._shown[pixel] = charge
        clusters = describe_clusters(sensor, u_cell, v_cell, charge)
        self._sizes[half] += _count_values(clusters.sizes, MAX_COUNTED_CLUSTER_SIZE)
        self._cluster_charges[half] += _count_values(clusters.charges, _MAX_CLUSTER_CHARGE)
        self._large_sizes[half].extend(clusters.sizes[clusters.sizes >= MAX_COUNTED_CLUSTER_SIZE].tolist())
        self._large_charges[half].extend(clusters.charges[clusters.charges >= _MAX_CLUSTER_CHARGE].tolist())
        self._features.frombytes(compute_features(sensor, u_cell, v_cell, charge, clusters).tobytes())
        self._repeats.add(sensor, u_cell, v_cell, charge)

    def build_sample(self, name: str, jobs: tuple[Provenance, ...]) -> Sample:
        even, odd = (
            ClusterCounts(
                sizes=self._sizes[half],
                charges=self._cluster_charges[half],
                large_sizes=np.array(self._large_sizes[half], dtype=np.int64),
                large_charges=np.array(self._large_charges[half], dtype=np.int64),
            )
            for half in (0, 1)
        )
        event_numbers = np.array(self._events, dtype=np.int64)
        features = np.array(self._features, dtype=np.float32)
        return Sample(
            name=name,
            jobs=jobs,
            min_charge=self._min_charge,
            digits_before_cut=self.n_digits,
            digits_below_cut=self.n_below_cut,
            smallest_charge=self.smallest_charge if self.n_digits else None,
            event_numbers=event_numbers,
            charge_counts=self._charge_counts,
            hits=np.array(self._hits, dtype=np.int64).reshape(-1, N_SENSORS),
            charge_sums=np.array(self._charge_sums, dtype=np.int64).reshape(-1, N_SENSORS),
            hit_map=self._hit_map.reshape(_SHAPE),
            clusters=(even, odd),
            repeats=self._repeats.find_repeats(),
            features=ImageFeatures(event_numbers, features.reshape(-1, N_SENSORS, len(FEATURES))),
            shown_images=self._shown.reshape(_SHAPE),
        )


def _average_events(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average over the events, without NaN; return means and standard errors, NaN for no value or fewer than two."""
    known = ~np.isnan(values)
    n_known = known.sum(axis=0)
    mean = divide(np.where(known, values, 0).sum(axis=0), n_known)
    squares = np.where(known, values - mean, 0) ** 2
    return mean, np.sqrt(divide(squares.sum(axis=0), n_known * (n_known - 1)))


def _check_threshold(fact: str, threshold: int, min_charge: int) -> None:
    """Refuse a cut below the threshold; the message starts with a fact about it."""
    if threshold > min_charge:
        message = f"{fact}, so it cannot be cut at {min_charge} ADU: ask for --min-charge {threshold}."
        raise ArgumentValueError("min_charge", message)


def _count_values(values: NDArray[np.int64], largest: int) -> NDArray[np.int64]:
    """Count each value from 0 on; the last bin includes all larger values."""
    return np.bincount(np.minimum(values, largest), minlength=largest + 1)
