"""Marginals of the background: charge spectrum, occupancies and means of sensors, and the files that publish them."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
from msgspec import Meta

from pxdbg_runtime.checks import check_path
from pxdbg_runtime.errors import JsonFieldError, MarginalsError
from pxdbg_runtime.json_records import Fraction, Record, Text, convert_record, decode_record, show_name
from pxdbg_runtime.regular_file import open_regular
from pxdbg_runtime.sensors import LAYER_OF_SENSOR, MAX_CHARGE_ADU, N_SENSORS, READOUT_THRESHOLD_ADU
from pxdbg_runtime.validation.scores import HistogramScores, score_histograms
from pxdbg_runtime.validation.sensor_scores import SensorScores, score_sensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.checks import StrPath

__all__ = [
    "OCCUPANCY_BINS",
    "OCCUPANCY_RANGE",
    "LayerMeans",
    "MarginalScores",
    "Marginals",
    "PublicMarginals",
    "read_marginals",
    "score_marginals",
]

OCCUPANCY_BINS: Final = 200
OCCUPANCY_RANGE: Final = 0.02
"""Upper edge of the last bin of the occupancy of an image; images above it are counted separately."""
_MAX_FILE_BYTES: Final = 16 << 20
"""The public file has 17 kB."""
_OCCUPANCY_TOLERANCE: Final = 0.01
"""Relative, for rounded numbers; the public file agrees to a millionth."""
_SIMULATION: Final = "geant4"
"""Name of the published sample that is the reference of the generators."""


@dataclass(frozen=True, kw_only=True)
class LayerMeans:
    """Means over the sensors of a layer: occupancy, 0 to 1, and charge, ADU."""

    layer: int
    mean_occupancy: float
    mean_charge_adu: float


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
        Images above 0.02.
    sensor_mean_occupancy : ndarray of float64, shape (40,)
        Mean over the images of a sensor, 0 to 1.
    sensor_mean_charge : ndarray of float64, shape (40,)
        Mean over the images of a sensor of their mean charges, ADU; NaN for a sensor without a hit.
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
        """Mean charge of a hit, ADU."""
        charges = np.arange(self.min_charge, MAX_CHARGE_ADU + 1)
        return float(charges @ self.charge_counts.astype(np.float64) / self.charge_counts.sum())

    def average_layer(self, layer: int) -> LayerMeans:
        """Average over the sensors of a layer."""
        of_layer = layer == LAYER_OF_SENSOR
        charge = self.sensor_mean_charge[of_layer]
        known = charge[~np.isnan(charge)]
        return LayerMeans(
            layer=layer,
            mean_occupancy=float(self.sensor_mean_occupancy[of_layer].mean()),
            mean_charge_adu=float(known.mean()) if len(known) else float("nan"),
        )


@dataclass(frozen=True, kw_only=True)
class MarginalScores:
    """One sample's marginals against another's.

    Attributes
    ----------
    charge : HistogramScores or None
        Of the spectra in bins of 1 ADU; W1 in ADU.
    occupancy : HistogramScores or None
        Of the images' occupancies in bins of 0.01 percentage points, without images above 2 %; W1 in percentage
        points. None if all images are above.
    total_occupancy_percent : float
        Relative difference of the mean occupancies.
    sensor_occupancy, sensor_charge : SensorScores or None
        Of the mean occupancies and the mean charges of the sensors; None if no sensor can be compared.
    """

    charge: HistogramScores | None
    occupancy: HistogramScores | None
    total_occupancy_percent: float
    sensor_occupancy: SensorScores | None
    sensor_charge: SensorScores | None


def score_marginals(ours: Marginals, reference: Marginals) -> MarginalScores:
    """Compare marginals that have the same cut."""
    return MarginalScores(
        charge=score_histograms(ours.charge_counts, reference.charge_counts, 1.0),
        occupancy=score_histograms(
            ours.occupancy_counts, reference.occupancy_counts, 100 * OCCUPANCY_RANGE / OCCUPANCY_BINS
        ),
        total_occupancy_percent=100 * (ours.mean_occupancy / reference.mean_occupancy - 1),
        sensor_occupancy=score_sensors(ours.sensor_mean_occupancy, reference.sensor_mean_occupancy),
        sensor_charge=score_sensors(ours.sensor_mean_charge, reference.sensor_mean_charge),
    )


@dataclass(frozen=True, kw_only=True)
class PublicMarginals:
    """Content of a file of published marginals.

    Attributes
    ----------
    source : str
        Origin of the numbers.
    reference : Marginals
        Of the simulation.
    published : tuple of Marginals
        Of the generators that were published with it.
    """

    source: str
    reference: Marginals
    published: tuple[Marginals, ...]


def read_marginals(path: StrPath) -> PublicMarginals:
    """Read a JSON file of published marginals.

    Raises
    ------
    MarginalsError
        If the file cannot be read, or is something else.
    """
    path = check_path("path", path)
    try:
        with open_regular(path) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            content = file.read(_MAX_FILE_BYTES)
        if size > _MAX_FILE_BYTES:
            message = f"{path} has {size:,} bytes, expected a JSON file of marginals of at most {_MAX_FILE_BYTES:,}."
            raise MarginalsError(path, message)
        return _build_public_marginals(decode_record(content.decode(), _MarginalsFile))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}."
    except UnicodeDecodeError:
        message = f"{path} is not a JSON file of marginals: it is not text in UTF-8."
    except JsonFieldError as error:
        message = f"{path} is not a JSON file of marginals: {error}"
    raise MarginalsError(path, message)


class _MarginalsFile(Record, frozen=True, kw_only=True):
    source: Text
    charge_bins: Text
    occupancy_bins: Text
    sensors: Text
    samples: dict[Text, object]


_N_CHARGES: Final = MAX_CHARGE_ADU + 1 - READOUT_THRESHOLD_ADU
_Count = Annotated[int, Meta(ge=0, le=np.iinfo(np.int64).max // (MAX_CHARGE_ADU + 1))]
"""The sum of a histogram of such counts is an int64."""


class _SampleRecord(Record, frozen=True, kw_only=True):
    """One entry of `samples`; fields as in `Marginals`."""

    empty_pixels: _Count
    charge_counts: Annotated[tuple[_Count, ...], Meta(min_length=_N_CHARGES, max_length=_N_CHARGES)]
    occupancy_counts: Annotated[tuple[_Count, ...], Meta(min_length=OCCUPANCY_BINS, max_length=OCCUPANCY_BINS)]
    occupancy_overflow: _Count
    sensor_mean_occupancy: Annotated[tuple[Fraction, ...], Meta(min_length=N_SENSORS, max_length=N_SENSORS)]
    sensor_mean_charge: Annotated[
        tuple[Annotated[float, Meta(ge=0, le=MAX_CHARGE_ADU)], ...], Meta(min_length=N_SENSORS, max_length=N_SENSORS)
    ]


def _build_public_marginals(file: _MarginalsFile) -> PublicMarginals:
    samples = {name: _build_marginals(name, value) for name, value in file.samples.items()}
    if _SIMULATION not in samples:
        field = f"samples.{_SIMULATION}"
        raise JsonFieldError(field, f"the field {field} is missing.")
    reference = samples.pop(_SIMULATION)
    return PublicMarginals(source=file.source, reference=reference, published=tuple(samples.values()))


def _build_marginals(name: str, value: object) -> Marginals:
    try:
        record = convert_record(value, _SampleRecord)
    except JsonFieldError as error:
        field = f"samples.{name}.{error.field}"
        raise JsonFieldError(field, f"in samples.{show_name(name)}, {error}") from None
    for field in ("charge_counts", "occupancy_counts", "sensor_mean_occupancy"):
        if not any(getattr(record, field)):
            path = f"samples.{name}.{field}"
            raise JsonFieldError(path, f"samples.{show_name(name)}.{field} must not be all zero.")
    n_hits = sum(record.charge_counts)
    share, mean = n_hits / (n_hits + record.empty_pixels), fmean(record.sensor_mean_occupancy)
    if not math.isclose(share, mean, rel_tol=_OCCUPANCY_TOLERANCE):
        path = f"samples.{name}.empty_pixels"
        message = (
            f"in samples.{show_name(name)}, charge_counts and empty_pixels are those of an occupancy of "
            f"{100 * share:.3g} %, but the mean of sensor_mean_occupancy is {100 * mean:.3g} %."
        )
        raise JsonFieldError(path, message)
    return Marginals(
        name=name,
        min_charge=READOUT_THRESHOLD_ADU,
        empty_pixels=record.empty_pixels,
        charge_counts=np.array(record.charge_counts, dtype=np.int64),
        occupancy_counts=np.array(record.occupancy_counts, dtype=np.int64),
        occupancy_overflow=record.occupancy_overflow,
        sensor_mean_occupancy=np.array(record.sensor_mean_occupancy),
        sensor_mean_charge=np.array(record.sensor_mean_charge),
    )
