"""All figures of a validation, as plain data: what the page shows and what the JSON beside it holds."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from msgspec import Struct, structs

from pxdbg_runtime.sensors import LADDERS_OF_LAYER, N_SENSORS, PIXELS_PER_SENSOR
from pxdbg_runtime.validation.marginals import Marginals, MarginalScores, PublicMarginals, score_marginals
from pxdbg_runtime.validation.repeats import PixelSpread, Repeats, expected_busiest, pixel_spread
from pxdbg_runtime.validation.sample import CLUSTER_CHARGE_BIN_ADU, ClusterCounts, Sample
from pxdbg_runtime.validation.scores import HistogramScores, score_histograms
from pxdbg_runtime.validation.seams import BorderRatio, Seam, Verdict, border_ratios, find_seams
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from numpy.typing import NDArray

    from pxdbg_runtime.formats.provenance import Provenance

__all__ = [
    "ClusterDifference",
    "ClusterSummary",
    "Comparison",
    "DigitReport",
    "LayerMeans",
    "Report",
    "Role",
    "correlation",
    "validate",
]

Role = Literal["sample", "half against half", "reference", "published"]
_SCHEMA: Final = 2
"""Schema 1 had `how_made` of one file in the place of `jobs`."""
_MIN_EVENTS_TO_CORRELATE: Final = 3


@dataclass(frozen=True, kw_only=True)
class LayerMeans:
    """Means over the sensors of a layer: occupancy, 0 to 1, and charge, ADU."""

    layer: int
    mean_occupancy: float
    mean_charge_adu: float


@dataclass(frozen=True, kw_only=True)
class ClusterSummary:
    """8-connected clusters: how many, their size in hits, their summed charge in ADU."""

    clusters: int
    mean_size: float
    median_size: float
    mean_charge_adu: float
    median_charge_adu: float


@dataclass(frozen=True, kw_only=True)
class ClusterDifference:
    """Clusters against those of a reference: relative differences in percent, and distances of the histograms."""

    mean_size_percent: float
    median_size_percent: float
    mean_charge_percent: float
    median_charge_percent: float
    sizes: HistogramScores | None
    charges: HistogramScores | None


@dataclass(frozen=True, kw_only=True)
class DigitReport:
    """Figures of one sample of digits by itself.

    Attributes
    ----------
    name : str
    jobs : tuple of Provenance
        How the digits of each file of the sample were made; empty if that is unknown.
    events, digits : int
        The digits after the cut.
    below_cut_share : float or None
        Share of all pixels with a charge from 1 up to the cut; None if the file cannot show it.
    marginals : Marginals
    layers : tuple of LayerMeans
    seams : tuple of Seam
    borders : tuple of BorderRatio
    clusters : ClusterSummary
    repeats : Repeats
    expected_busiest : float
        The images in which the busiest pixel would fire if all hits were independent and all pixels alike.
    spread : PixelSpread
    mean_correlation : float or None
        Of the occupancies of two different sensors over events; None for fewer than three events.
    """

    name: str
    jobs: tuple[Provenance, ...]
    events: int
    digits: int
    below_cut_share: float | None
    marginals: Marginals
    layers: tuple[LayerMeans, ...]
    seams: tuple[Seam, ...]
    borders: tuple[BorderRatio, ...]
    clusters: ClusterSummary
    repeats: Repeats
    expected_busiest: float
    spread: PixelSpread
    mean_correlation: float | None

    @property
    def worst_seam(self) -> Seam | None:
        """The seam that deviates most, among those of the worst verdict."""
        order: dict[Verdict, int] = {"pass": 0, "too few hits": 1, "fail": 2}
        return max(self.seams, key=lambda seam: (order[seam.verdict], abs(seam.deviation_percent)), default=None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One thing against another.

    Attributes
    ----------
    name, against : str
    role : {"sample", "half against half", "reference", "published"}
        What is compared: a sample, its events of even number against those of odd, a reference of digits against
        another reference, or a published generator against the simulation published with it.
    scores : MarginalScores
    clusters : ClusterDifference or None
        None where one side has no digits, only marginals.
    """

    name: str
    role: Role
    against: str
    scores: MarginalScores
    clusters: ClusterDifference | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole validation.

    Attributes
    ----------
    min_charge : int
        The cut, ADU.
    samples, references : tuple of DigitReport
        The files of digits.
    public : tuple of PublicMarginals
    comparisons : tuple of Comparison
    primary : str or None
        The reference whose scores the summary shows: the first of published marginals, else the first of digits.
    """

    min_charge: int
    samples: tuple[DigitReport, ...]
    references: tuple[DigitReport, ...]
    public: tuple[PublicMarginals, ...]
    comparisons: tuple[Comparison, ...]
    primary: str | None

    def to_json(self) -> str:
        """Write it as JSON; what is not known is null."""
        return json.dumps({"schema": _SCHEMA, "version": __version__, **_plain_fields(self)}, indent=1)

    def find(self, name: str, role: Role, against: str | None) -> Comparison | None:
        """Find a comparison; names alone may be shared by a file and a published generator."""
        wanted = (name, role, against)
        return next((each for each in self.comparisons if (each.name, each.role, each.against) == wanted), None)


def validate(
    samples: tuple[Sample, ...], references: tuple[Sample, ...], public: tuple[PublicMarginals, ...]
) -> Report:
    """Compare samples with each reference, and each sample with itself.

    Parameters
    ----------
    samples, references : tuple of Sample
        Cut at the same charge; at least one sample.
    public : tuple of PublicMarginals

    Raises
    ------
    MissingPackageError
        If scipy is not installed.
    """
    comparisons: list[Comparison] = []
    for of_one in public:
        theirs = of_one.reference
        comparisons += [_compared(each.marginals(), "sample", theirs) for each in samples]
        comparisons += [_compared(each.marginals(), "reference", theirs) for each in references]
        comparisons += [_compared(each, "published", theirs) for each in of_one.published]
    for reference in references:
        comparisons += [
            _compared(
                each.marginals(), "sample", reference.marginals(), _differing(each.all_clusters, reference.all_clusters)
            )
            for each in samples
        ]
    comparisons += [each for sample in (*samples, *references) for each in _halves_compared(sample)]
    names = [each.reference.name for each in public] + [each.name for each in references]
    return Report(
        min_charge=samples[0].min_charge,
        samples=tuple(map(_digit_report, samples)),
        references=tuple(map(_digit_report, references)),
        public=public,
        comparisons=tuple(comparisons),
        primary=names[0] if names else None,
    )


def correlation(sample: Sample) -> NDArray[np.float64] | None:
    """Correlate the occupancies of sensors over events.

    Returns
    -------
    ndarray of float64, shape (40, 40), or None
        Pearson's coefficients, NaN for a sensor whose occupancy never changes; None for fewer than three events.
    """
    if len(sample.hits) < _MIN_EVENTS_TO_CORRELATE:
        return None
    centred = sample.hits - sample.hits.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    norm[norm == 0] = np.nan
    return np.asarray(centred.T @ centred / np.outer(norm, norm))


def _digit_report(sample: Sample) -> DigitReport:
    marginals = sample.marginals()
    u_profile, v_profile = sample.profiles
    of_layers = {layer: marginals.layer_means(layer) for layer in LADDERS_OF_LAYER}
    return DigitReport(
        name=sample.name,
        jobs=sample.jobs,
        events=len(sample.hits),
        digits=int(sample.hits.sum()),
        below_cut_share=sample.below_cut_share,
        marginals=marginals,
        layers=tuple(
            LayerMeans(layer=layer, mean_occupancy=occupancy, mean_charge_adu=charge)
            for layer, (occupancy, charge) in of_layers.items()
        ),
        seams=find_seams(u_profile, v_profile),
        borders=(*border_ratios(u_profile, "u"), *border_ratios(v_profile, "v")),
        clusters=_summary(sample.all_clusters),
        repeats=sample.repeats,
        expected_busiest=expected_busiest(sample.repeats.compared_hits / PIXELS_PER_SENSOR, PIXELS_PER_SENSOR),
        spread=pixel_spread(sample.hit_map.sum(axis=0)),
        mean_correlation=_mean_off_diagonal(correlation(sample)),
    )


def _compared(ours: Marginals, role: Role, theirs: Marginals, clusters: ClusterDifference | None = None) -> Comparison:
    return Comparison(
        name=ours.name, role=role, against=theirs.name, scores=score_marginals(ours, theirs), clusters=clusters
    )


def _halves_compared(sample: Sample) -> tuple[Comparison, ...]:
    halves = sample.half_marginals()
    if halves is None or not all(half.charge_counts.any() for half in halves):
        return ()
    scores = score_marginals(*halves)
    clusters = _differing(*sample.clusters)
    return (
        Comparison(name=sample.name, role="half against half", against=sample.name, scores=scores, clusters=clusters),
    )


def _summary(counts: ClusterCounts) -> ClusterSummary:
    mean_size, median_size = _mean_and_median(counts.sizes)
    mean_charge, median_charge = _mean_and_median(counts.charges)
    return ClusterSummary(
        clusters=int(counts.sizes.sum()),
        mean_size=mean_size,
        median_size=median_size,
        mean_charge_adu=mean_charge,
        median_charge_adu=median_charge,
    )


def _differing(ours: ClusterCounts, theirs: ClusterCounts) -> ClusterDifference:
    summary, reference = _summary(ours), _summary(theirs)
    return ClusterDifference(
        mean_size_percent=100 * (summary.mean_size / reference.mean_size - 1),
        median_size_percent=100 * (summary.median_size / reference.median_size - 1),
        mean_charge_percent=100 * (summary.mean_charge_adu / reference.mean_charge_adu - 1),
        median_charge_percent=100 * (summary.median_charge_adu / reference.median_charge_adu - 1),
        sizes=score_histograms(ours.sizes, theirs.sizes, 1.0),
        charges=score_histograms(ours.charges, theirs.charges, CLUSTER_CHARGE_BIN_ADU),
    )


def _mean_and_median(counts: NDArray[np.int64]) -> tuple[float, float]:
    """Read both off a histogram with one bin for each of the values 0, 1, 2 and so on."""
    running = np.cumsum(counts)
    n_values = int(running[-1])
    middle = [int(np.searchsorted(running, place, side="right")) for place in ((n_values - 1) // 2, n_values // 2)]
    return float((np.arange(len(counts)) * counts).sum() / n_values), sum(middle) / 2


def _mean_off_diagonal(matrix: NDArray[np.float64] | None) -> float | None:
    if matrix is None:
        return None
    off_diagonal = matrix[~np.eye(N_SENSORS, dtype=bool)]
    known = off_diagonal[~np.isnan(off_diagonal)]
    return float(known.mean()) if len(known) else None


def _plain(value: object) -> object:
    """Turn dataclasses, arrays and NaN into what JSON knows."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_fields(value)
    if isinstance(value, Struct):
        return structs.asdict(value)
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _plain_fields(described: DataclassInstance) -> dict[str, object]:
    plain = {field.name: _plain(getattr(described, field.name)) for field in fields(described)}
    if isinstance(described, Seam):
        plain["verdict"] = described.verdict
    return plain
