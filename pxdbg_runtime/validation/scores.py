"""How far apart two histograms are: pure functions of counts, one definition for every sample.

All take counts in the same equal bins. Each histogram is normalised to a sum of 1, *p* and *q*; *P* and *Q* are the
running sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "HistogramScores",
    "jensen_shannon",
    "kolmogorov_smirnov",
    "pulls",
    "score_histograms",
    "separation_power",
    "wasserstein",
]


@dataclass(frozen=True, kw_only=True)
class HistogramScores:
    """Distances between two histograms, each 0 where they have the same shape.

    Attributes
    ----------
    w1 : float
        Wasserstein distance of order 1, in the unit of the axis.
    ks : float
        Kolmogorov-Smirnov statistic, 0 to 1.
    jensen_shannon : float
        Jensen-Shannon distance (the root of the divergence), base 2, 0 to 1.
    separation : float
        Separation power, 0 to 1.
    pull_rms : float
        Root mean square of the pulls; 1 where only Poisson noise differs.
    """

    w1: float
    ks: float
    jensen_shannon: float
    separation: float
    pull_rms: float


def score_histograms(counts: ArrayLike, reference: ArrayLike, bin_width: float) -> HistogramScores | None:
    """Compare two histograms.

    Parameters
    ----------
    counts, reference : array_like, shape (bins,)
        Not negative.
    bin_width : float
        Of all bins; its unit becomes the unit of `w1`.

    Returns
    -------
    HistogramScores or None
        None if one of them is empty.
    """
    ours, theirs = np.asarray(counts), np.asarray(reference)
    if not ours.any() or not theirs.any():
        return None
    each = pulls(ours, theirs)
    return HistogramScores(
        w1=wasserstein(ours, theirs, bin_width),
        ks=kolmogorov_smirnov(ours, theirs),
        jensen_shannon=jensen_shannon(ours, theirs),
        separation=separation_power(ours, theirs),
        pull_rms=float(np.sqrt(np.nanmean(each**2))),
    )


def wasserstein(counts: ArrayLike, reference: ArrayLike, bin_width: float) -> float:
    """Sum |P - Q| times the bin width: how far the content must be moved on average.

    Examples
    --------
    >>> wasserstein([4, 0, 0], [0, 0, 2], bin_width=0.5)
    1.0
    """
    return float(np.abs(_running_difference(counts, reference)).sum() * bin_width)


def kolmogorov_smirnov(counts: ArrayLike, reference: ArrayLike) -> float:
    """Find the largest |P - Q|.

    Examples
    --------
    >>> kolmogorov_smirnov([1, 1], [1, 3])
    0.25
    """
    return float(np.abs(_running_difference(counts, reference)).max())


def jensen_shannon(counts: ArrayLike, reference: ArrayLike) -> float:
    """Take the Jensen-Shannon distance in base 2: the root of the divergence, as scipy gives it.

    Examples
    --------
    >>> jensen_shannon([1, 0], [0, 1])
    1.0
    """
    p, q = _normalised(counts), _normalised(reference)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(max(divergence, 0.0)))  # rounding may leave it below 0


def separation_power(counts: ArrayLike, reference: ArrayLike) -> float:
    """Half the sum of (p - q)² / (p + q), over the bins that are not empty in both.

    Examples
    --------
    >>> separation_power([1, 0], [0, 1])
    1.0
    """
    p, q = _normalised(counts), _normalised(reference)
    filled = p + q > 0
    return float(0.5 * ((p - q)[filled] ** 2 / (p + q)[filled]).sum())


def pulls(counts: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Divide p - q by the Poisson error of both, bin by bin; NaN where both are empty.

    Hits of one cluster come together, so counts scatter more than Poisson's: compare with the pulls of half a sample
    against its other half.
    """
    ours, theirs = np.asarray(counts, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    variance = ours / ours.sum() ** 2 + theirs / theirs.sum() ** 2
    error = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray((_normalised(ours) - _normalised(theirs)) / error)


def _normalised(counts: ArrayLike) -> NDArray[np.float64]:
    content = np.asarray(counts, dtype=np.float64)
    return np.asarray(content / content.sum())


def _running_difference(counts: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    return np.cumsum(_normalised(counts) - _normalised(reference))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    filled = p > 0
    return float((p[filled] * np.log2(p[filled] / q[filled])).sum())
