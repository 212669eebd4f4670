"""Distances between two histograms with the same equal bins.

Each histogram is normalised to a sum of 1, *p* and *q*; *P* and *Q* are their running sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.optional_imports import require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["HistogramScores", "compute_pulls", "score_histograms"]


@dataclass(frozen=True, kw_only=True)
class HistogramScores:
    """Distances between two histograms, each 0 where they have the same shape.

    Attributes
    ----------
    w1 : float
        Wasserstein distance of order 1, in the unit of the axis: the sum of ``|P - Q|`` times the bin width.
    ks : float
        Kolmogorov-Smirnov statistic, 0 to 1: the largest ``|P - Q|``.
    jensen_shannon : float
        Jensen-Shannon distance (the root of the divergence), base 2, 0 to 1.
    separation : float
        Separation power, 0 to 1: half the sum of ``(p - q)**2 / (p + q)``.
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

    Raises
    ------
    MissingPackageError
        If scipy is not installed.

    Examples
    --------
    >>> scores = score_histograms([4, 0, 0], [0, 0, 2], bin_width=0.5)
    >>> scores.w1, scores.ks, scores.jensen_shannon, scores.separation
    (1.0, 1.0, 1.0, 1.0)
    """
    special = require("scipy.special", extra="validate", purpose="A validation")
    ours, theirs = np.asarray(counts), np.asarray(reference)
    if not ours.any() or not theirs.any():
        return None
    p, q = ours / ours.sum(), theirs / theirs.sum()
    filled = p + q > 0
    ours_below, theirs_below = np.cumsum(p), np.cumsum(q)
    # Normalised once more, as scipy's function does: the last bit counts where the histograms are nearly equal.
    shares = p / p.sum(), q / q.sum()
    middle = (shares[0] + shares[1]) / 2
    divergence = sum(special.rel_entr(each, middle).sum() for each in shares) / np.log(2)
    return HistogramScores(
        w1=float(bin_width * np.abs(ours_below / ours_below[-1] - theirs_below / theirs_below[-1]).sum()),
        ks=float(np.abs(np.cumsum(p - q)).max()),
        jensen_shannon=float(np.sqrt(max(divergence / 2, 0))),  # which can round to less than 0
        separation=float(0.5 * ((p - q)[filled] ** 2 / (p + q)[filled]).sum()),
        pull_rms=float(np.sqrt(np.nanmean(compute_pulls(ours, theirs) ** 2))),
    )


def compute_pulls(counts: ArrayLike, reference: ArrayLike) -> NDArray[np.float64]:
    """Divide p - q by the Poisson error of both, bin by bin; NaN where both are empty.

    The hits of a cluster are correlated, so counts scatter more than Poisson's law says: compare with the pulls of half
    a sample against its other half.
    """
    ours, theirs = np.asarray(counts, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    variance = ours / ours.sum() ** 2 + theirs / theirs.sum() ** 2
    error = np.sqrt(np.where(variance > 0, variance, np.nan))
    return np.asarray((ours / ours.sum() - theirs / theirs.sum()) / error)
