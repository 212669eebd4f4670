"""Marginals of the background: a charge spectrum, occupancies, and means of sensors, as they were published."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import JsonFieldError, MarginalsError
from pxdbg_runtime.json_fields import Fields, NumberRange
from pxdbg_runtime.regular_file import open_regular
from pxdbg_runtime.sensors import N_SENSORS, SENSORS
from pxdbg_runtime.validation.scores import HistogramScores, score_histograms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "MAX_CHARGE",
    "OCCUPANCY_BINS",
    "OCCUPANCY_RANGE",
    "PUBLIC_MIN_CHARGE",
    "REFERENCE_SAMPLE",
    "MarginalScores",
    "Marginals",
    "PublicMarginals",
    "read_marginals",
    "score_marginals",
]

MAX_CHARGE: Final = 255
OCCUPANCY_BINS: Final = 200
OCCUPANCY_RANGE: Final = 0.02
"""Upper edge of the last bin of the occupancy of an image; what lies above is counted by itself."""
PUBLIC_MIN_CHARGE: Final = 7
"""The cut of the published marginals, ADU."""
_MAX_FILE_BYTES: Final = 16 << 20
"""The public file has 17 kB."""
REFERENCE_SAMPLE: Final = "geant4"
"""Which of the published samples is the simulation that the generators are judged by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Marginals:
    """Marginals of one sample.

    Attributes
    ----------
    name : str
    min_charge : int
        The cut, ADU.
    empty_pixels : int
    charge_counts : ndarray of int64, shape (256 - min_charge,)
        Hits of min_charge, min_charge + 1, … 255 ADU.
    occupancy_counts : ndarray of int64, shape (200,)
        Images by occupancy, equal bins from 0 to 0.02.
    occupancy_overflow : int
        Images above.
    sensor_mean_occupancy : ndarray of float64, shape (40,)
        0 to 1, mean over images.
    sensor_mean_charge : ndarray of float64, shape (40,)
        ADU: the mean over a sensor's images of the image's mean. NaN where a sensor has no hit.
    """

    name: str
    min_charge: int
    empty_pixels: int
    charge_counts: NDArray[np.int64]
    occupancy_counts: NDArray[np.int64]
    occupancy_overflow: int
    sensor_mean_occupancy: NDArray[np.float64]
    sensor_mean_charge: NDArray[np.float64]

    @property
    def mean_occupancy(self) -> float:
        """Mean over all images, 0 to 1."""
        return float(self.sensor_mean_occupancy.mean())

    @property
    def mean_hit_charge(self) -> float:
        """Mean charge of a hit, ADU, by the spectrum's lower bin edges."""
        charges = np.arange(self.min_charge, MAX_CHARGE + 1)
        return float((charges * self.charge_counts).sum() / self.charge_counts.sum())

    def layer_means(self, layer: int) -> tuple[float, float]:
        """Mean occupancy (0 to 1) and mean charge (ADU) over the sensors of a layer."""
        of_layer = np.array([sensor.layer == layer for sensor in SENSORS])
        charge = self.sensor_mean_charge[of_layer]
        known = charge[~np.isnan(charge)]
        return float(self.sensor_mean_occupancy[of_layer].mean()), float(known.mean()) if len(known) else float("nan")


@dataclass(frozen=True, kw_only=True)
class MarginalScores:
    """One sample's marginals against another's.

    Attributes
    ----------
    charge : HistogramScores or None
        Of the spectra in bins of 1 ADU; W1 in ADU.
    occupancy : HistogramScores or None
        Of the images' occupancies in bins of 0.01 percentage points, images above 2 % left out; W1 in percentage
        points. None if all images lie above.
    total_occupancy_percent : float
        Relative difference of the mean occupancies.
    sensor_occupancy_percent : float
        Root mean square over the sensors of the relative difference of their mean occupancies.
    sensor_charge_adu : float
        Root mean square over the sensors of the difference of their mean charges.
    """

    charge: HistogramScores | None
    occupancy: HistogramScores | None
    total_occupancy_percent: float
    sensor_occupancy_percent: float
    sensor_charge_adu: float


def score_marginals(ours: Marginals, reference: Marginals) -> MarginalScores:
    """Compare marginals that were cut at the same charge."""
    filled = reference.sensor_mean_occupancy > 0
    occupancy_ratio = ours.sensor_mean_occupancy[filled] / reference.sensor_mean_occupancy[filled] - 1
    charge_difference = ours.sensor_mean_charge - reference.sensor_mean_charge
    known = charge_difference[~np.isnan(charge_difference)]
    return MarginalScores(
        charge=score_histograms(ours.charge_counts, reference.charge_counts, 1.0),
        occupancy=score_histograms(
            ours.occupancy_counts, reference.occupancy_counts, 100 * OCCUPANCY_RANGE / OCCUPANCY_BINS
        ),
        total_occupancy_percent=100 * (ours.mean_occupancy / reference.mean_occupancy - 1),
        sensor_occupancy_percent=100 * _root_mean_square(occupancy_ratio),
        sensor_charge_adu=_root_mean_square(known),
    )


@dataclass(frozen=True, kw_only=True)
class PublicMarginals:
    """What a file of published marginals holds.

    Attributes
    ----------
    source : str
        Where the numbers come from.
    reference : Marginals
        Of the simulation.
    published : tuple of Marginals
        Of generators that were published with it.
    """

    source: str
    reference: Marginals
    published: tuple[Marginals, ...]


def read_marginals(path: Path) -> PublicMarginals:
    """Read a JSON file of published marginals.

    Raises
    ------
    MarginalsError
        If the file cannot be read, or is something else.
    """
    try:
        with open_regular(path) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            content = file.read(_MAX_FILE_BYTES)
        if size > _MAX_FILE_BYTES:
            message = f"{path} has {size:,} bytes, expected a JSON file of marginals of at most {_MAX_FILE_BYTES:,}."
            raise MarginalsError(path, message)
        text = content.decode()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}."
        raise MarginalsError(path, message) from None
    except UnicodeDecodeError:
        message = f"{path} is not a JSON file of marginals: it is not text in UTF-8."
        raise MarginalsError(path, message) from None
    try:
        return _public_marginals(Fields.parse(text))
    except JsonFieldError as error:
        message = f"{path} is not a JSON file of marginals: {error}"
        raise MarginalsError(path, message) from None


def _public_marginals(fields: Fields) -> PublicMarginals:
    source = fields.text("source")
    for described in ("charge_bins", "occupancy_bins", "sensors"):
        fields.text(described)
    samples = fields.nested("samples")
    fields.nothing_else()
    reference = _marginals(samples.nested(REFERENCE_SAMPLE), REFERENCE_SAMPLE, samples)
    published = [_marginals(samples.nested(name), name, samples) for name in samples.names()]
    return PublicMarginals(source=source, reference=reference, published=tuple(published))


def _marginals(fields: Fields, name: str, samples: Fields) -> Marginals:
    found = Marginals(
        name=name,
        min_charge=PUBLIC_MIN_CHARGE,
        empty_pixels=fields.integer("empty_pixels", NumberRange(0)),
        charge_counts=_counts(fields, "charge_counts", MAX_CHARGE + 1 - PUBLIC_MIN_CHARGE),
        occupancy_counts=_counts(fields, "occupancy_counts", OCCUPANCY_BINS),
        occupancy_overflow=fields.integer("occupancy_overflow", NumberRange(0)),
        sensor_mean_occupancy=_means(fields, "sensor_mean_occupancy", 1.0),
        sensor_mean_charge=_means(fields, "sensor_mean_charge", MAX_CHARGE),
    )
    fields.nothing_else()
    for histogram in ("charge_counts", "occupancy_counts", "sensor_mean_occupancy"):
        if not getattr(found, histogram).any():
            path = f"{samples.path(name)}.{histogram}"
            message = f"{path} must not be all zero."
            raise JsonFieldError(path, message)
    return found


def _counts(fields: Fields, name: str, length: int) -> NDArray[np.int64]:
    counts = fields.integers(name)
    _check_values(fields.path(name), counts, length, float(np.iinfo(np.int64).max // length))
    return np.array(counts, dtype=np.int64)


def _means(fields: Fields, name: str, largest: float) -> NDArray[np.float64]:
    means = fields.numbers(name)
    _check_values(fields.path(name), means, N_SENSORS, largest)
    return np.array(means)


def _check_values(path: str, values: Sequence[float], length: int, largest: float) -> None:
    if len(values) != length:
        message = f"{path} must hold {length} numbers, but holds {len(values)}."
        raise JsonFieldError(path, message)
    for value in values:
        if not 0 <= value <= largest:
            message = f"{path} must hold numbers from 0 to {largest:g}, but holds {value}."
            raise JsonFieldError(path, message)


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")
