"""All numbers of a validation, as plain data: the page shows them, the JSON beside it holds them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np

from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.optional_imports import is_installed
from pxdbg_runtime.sensors import LADDERS_OF_LAYER, PIXELS_PER_SENSOR
from pxdbg_runtime.validation.classifier import Classification, classify_images
from pxdbg_runtime.validation.correlations import Correlation, measure_correlation
from pxdbg_runtime.validation.marginals import LayerMeans, Marginals, MarginalScores, PublicMarginals, score_marginals
from pxdbg_runtime.validation.neighbours import NeighbourScores, compare_neighbours
from pxdbg_runtime.validation.repeats import PixelSpread, Repeats, expect_busiest, measure_pixel_spread
from pxdbg_runtime.validation.scores import HistogramScores, score_histograms
from pxdbg_runtime.validation.seams import BorderRatio, Seam, Verdict, find_seams, measure_borders
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.formats.provenance import Provenance
    from pxdbg_runtime.validation.features import ImageFeatures
    from pxdbg_runtime.validation.sample import ClusterCounts, Sample

__all__ = [
    "ClusterDifference",
    "ClusterSummary",
    "Comparison",
    "DigitReport",
    "Report",
    "Role",
    "build_report",
]

Role = Literal["sample", "half against half", "reference", "published"]
_SCHEMA: Final = 4
"""Schema 3 had neither classifications nor neighbours. Schema 2 had root mean squares over the sensors instead of
`SensorScores`, and a correlation without an error."""
_SEVERITY: Final[dict[Verdict, int]] = {"pass": 0, "too few hits": 1, "fail": 2}


@dataclass(frozen=True, kw_only=True)
class ClusterSummary:
    """8-connected clusters: their number, size in hits and charge in ADU."""

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
    """Properties of one sample of digits.

    Attributes
    ----------
    name : str
    jobs : tuple of Provenance
        Provenance of each file of the sample; empty if unknown.
    events, digits : int
        Digits that pass the cut.
    below_cut_share : float or None
        Share of all pixels with a charge below the cut, from 1 ADU on; None if the file lacks some by construction.
    marginals : Marginals
    layers : tuple of LayerMeans
    seams : tuple of Seam
    borders : tuple of BorderRatio
    clusters : ClusterSummary
    repeats : Repeats
    expected_busiest : float
        Expected value of `repeats.busiest_pixel` if hits were independent and all pixels had the same rate.
    spread : PixelSpread
    correlation : Correlation or None
        Of the occupancies of sensors, mean over all pairs; None for fewer than ten events.
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
    correlation: Correlation | None

    @property
    def worst_seam(self) -> Seam | None:
        """The largest seam among those of the worst verdict."""
        return max(self.seams, key=lambda seam: (_SEVERITY[seam.verdict], abs(seam.deviation_percent)), default=None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Scores of one set of marginals against another.

    Attributes
    ----------
    name, against : str
    role : {"sample", "half against half", "reference", "published"}
        What `name` is: a sample, the events of even number of a sample (against those of odd number), a reference of
        digits, or a published generator.
    scores : MarginalScores
    clusters : ClusterDifference or None
        None if one side has no digits, only marginals.
    classification : Classification or None
        None without digits on both sides, for half against half without a reference of digits, with fewer than ten
        different event numbers on one side, or without scikit-learn.
    neighbours : NeighbourScores or None
        None without digits on both sides, for half against half without a reference of digits, with five images with a
        hit or fewer on one side, or without scikit-learn.
    """

    name: str
    role: Role
    against: str
    scores: MarginalScores
    clusters: ClusterDifference | None
    classification: Classification | None
    neighbours: NeighbourScores | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A validation.

    Attributes
    ----------
    min_charge : int
        The cut, ADU.
    samples, references : tuple of DigitReport
    public : tuple of PublicMarginals
    comparisons : tuple of Comparison
    primary : str or None
        The reference of the summary's scores: the first of published marginals, else the first of digits.
    """

    min_charge: int
    samples: tuple[DigitReport, ...]
    references: tuple[DigitReport, ...]
    public: tuple[PublicMarginals, ...]
    comparisons: tuple[Comparison, ...]
    primary: str | None

    @property
    def digits(self) -> tuple[DigitReport, ...]:
        """Samples and references of digits."""
        return (*self.samples, *self.references)

    def to_json(self) -> str:
        """Format it as JSON; unknown values and NaN are null."""
        fields = msgspec.to_builtins(self, enc_hook=np.ndarray.tolist)
        return json.dumps({"schema": _SCHEMA, "version": __version__, **_replace_nan(fields)}, indent=1)

    def find_comparison(self, name: str, role: Role, against: str | None) -> Comparison | None:
        """Find a comparison; a file and a published generator may have the same name."""
        wanted = (name, role, against)
        return next((each for each in self.comparisons if (each.name, each.role, each.against) == wanted), None)


def build_report(
    samples: tuple[Sample, ...], references: tuple[Sample, ...], public: tuple[PublicMarginals, ...]
) -> Report:
    """Compare samples with each reference, and the two halves of each sample with each other.

    Without scikit-learn there is no classification and no comparison of neighbours.

    Parameters
    ----------
    samples, references : tuple of Sample
        With the same cut; at least one sample.
    public : tuple of PublicMarginals

    Raises
    ------
    MissingPackageError
        If scipy is not installed.
    ArgumentValueError
        If two samples or references, published ones included, have the same name.
    """
    names = [each.reference.name for each in public] + [each.name for each in references]
    _check_names([*names, *(each.name for each in samples)])
    comparisons: list[Comparison] = []
    for file in public:
        comparisons += [_compare(each.bin_marginals(), "sample", file.reference) for each in samples]
        comparisons += [_compare(each.bin_marginals(), "reference", file.reference) for each in references]
        comparisons += [_compare(each, "published", file.reference) for each in file.published]
    for reference in references:
        for sample in samples:
            ours, theirs = sample.bin_marginals(), reference.bin_marginals()
            clusters = _compare_clusters(sample.all_clusters, reference.all_clusters)
            comparisons.append(_compare(ours, "sample", theirs, clusters, (sample.features, reference.features)))
    for sample in (*samples, *references):
        halves = sample.bin_halves()
        if halves is not None and all(half.charge_counts.any() for half in halves):
            even, odd = halves
            clusters = _compare_clusters(*sample.clusters)
            # Only beside a reference of digits: where there is none, these scores have nothing to be the scale of.
            features = sample.split_features() if references else None
            comparisons.append(_compare(even, "half against half", odd, clusters, features))
    return Report(
        min_charge=samples[0].min_charge,
        samples=tuple(map(_describe_digits, samples)),
        references=tuple(map(_describe_digits, references)),
        public=public,
        comparisons=tuple(comparisons),
        primary=names[0] if names else None,
    )


def _check_names(names: list[str]) -> None:
    """Refuse a name that comes twice: comparisons are found by names."""
    for name in names:
        if names.count(name) > 1:
            message = f"Two samples or references have the name {name}: rename one of the files."
            raise ArgumentValueError("references", message)


def _describe_digits(sample: Sample) -> DigitReport:
    marginals = sample.bin_marginals()
    u_profile, v_profile = sample.profiles
    return DigitReport(
        name=sample.name,
        jobs=sample.jobs,
        events=len(sample.hits),
        digits=int(sample.hits.sum()),
        below_cut_share=sample.below_cut_share,
        marginals=marginals,
        layers=tuple(map(marginals.average_layer, LADDERS_OF_LAYER)),
        seams=find_seams(u_profile, v_profile),
        borders=(*measure_borders(u_profile, "u"), *measure_borders(v_profile, "v")),
        clusters=_summarise_clusters(sample.all_clusters),
        repeats=sample.repeats,
        expected_busiest=expect_busiest(sample.repeats.compared_hits / PIXELS_PER_SENSOR, PIXELS_PER_SENSOR),
        spread=measure_pixel_spread(sample.hit_map.sum(axis=0)),
        correlation=measure_correlation(sample.hits),
    )


def _compare(
    ours: Marginals,
    role: Role,
    theirs: Marginals,
    clusters: ClusterDifference | None = None,
    features: tuple[ImageFeatures, ImageFeatures] | None = None,
) -> Comparison:
    if not is_installed("sklearn"):
        features = None
    return Comparison(
        name=ours.name,
        role=role,
        against=theirs.name,
        scores=score_marginals(ours, theirs),
        clusters=clusters,
        classification=classify_images(*features) if features else None,
        neighbours=compare_neighbours(*features) if features else None,
    )


def _compare_clusters(ours: ClusterCounts, theirs: ClusterCounts) -> ClusterDifference:
    summary, reference = _summarise_clusters(ours), _summarise_clusters(theirs)
    return ClusterDifference(
        mean_size_percent=100 * (summary.mean_size / reference.mean_size - 1),
        median_size_percent=100 * (summary.median_size / reference.median_size - 1),
        mean_charge_percent=100 * (summary.mean_charge_adu / reference.mean_charge_adu - 1),
        median_charge_percent=100 * (summary.median_charge_adu / reference.median_charge_adu - 1),
        sizes=score_histograms(ours.sizes, theirs.sizes, 1.0),
        charges=score_histograms(ours.charges, theirs.charges, 1.0),
    )


def _summarise_clusters(counts: ClusterCounts) -> ClusterSummary:
    mean_size, median_size = _compute_mean_and_median(counts.sizes, counts.large_sizes)
    mean_charge, median_charge = _compute_mean_and_median(counts.charges, counts.large_charges)
    return ClusterSummary(
        clusters=int(counts.sizes.sum()),
        mean_size=mean_size,
        median_size=median_size,
        mean_charge_adu=mean_charge,
        median_charge_adu=median_charge,
    )


def _compute_mean_and_median(counts: NDArray[np.int64], large: NDArray[np.int64]) -> tuple[float, float]:
    """Use a histogram with one bin for each of the values 0, 1, 2 and so on; `large` has the values of the last bin."""
    running = np.cumsum(counts)
    n_values, n_small = int(running[-1]), int(running[-2])
    total = int((np.arange(len(counts) - 1) * counts[:-1]).sum() + large.sum())
    ordered = np.sort(large)
    middle = [
        int(ordered[place - n_small] if place >= n_small else np.searchsorted(running, place, side="right"))
        for place in ((n_values - 1) // 2, n_values // 2)
    ]
    return total / n_values, sum(middle) / 2


def _replace_nan(value: Any) -> Any:  # noqa: ANN401  # JSON of any shape
    if isinstance(value, dict):
        return {name: _replace_nan(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
