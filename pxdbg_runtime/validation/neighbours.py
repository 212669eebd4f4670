"""Precision, recall, density and coverage: whether the images of two samples have the same neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.validation.features import FEATURES, standardise_by_sensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.features import ImageFeatures

__all__ = ["MAX_EVENTS_OF_NEIGHBOURS", "N_NEIGHBOURS", "NeighbourScores", "compare_neighbours", "score_neighbours"]

N_NEIGHBOURS: Final = 5
MAX_EVENTS_OF_NEIGHBOURS: Final = 250
"""Of each sample: 10,000 images, as many as Naeem et al. take."""

_OCCUPANCY: Final = FEATURES.index("occupancy (%)")
_CHUNK_MIB: Final = 32
"""Of distances at a time."""


@dataclass(frozen=True, kw_only=True)
class NeighbourScores:
    """Precision, recall, density and coverage.

    The ball of an image reaches to its k-th nearest neighbour in its own sample, itself not counted; k = 5.

    Attributes
    ----------
    images : int
        Compared images of each sample.
    precision : float
        Share of our images that lie in the ball of some image of the reference (Kynkäänniemi et al., NeurIPS 2019).
    recall : float
        Share of the reference's images that lie in the ball of some image of ours (the same).
    density : float
        Mean number of the reference's balls that one of our images lies in, over k: it can exceed 1 (Naeem et al.,
        ICML 2020).
    coverage : float
        Share of the reference's images whose ball has at least one of our images (the same).
    expected_coverage : float
        Of two samples with the same distribution, whatever it is, if no two images are equal; their density is 1.
    """

    images: int
    precision: float
    recall: float
    density: float
    coverage: float
    expected_coverage: float


def compare_neighbours(ours: ImageFeatures, theirs: ImageFeatures) -> NeighbourScores | None:
    """Score the images with a hit in the first events of two samples, at most 250 events, equally many images of each.

    Features are relative to their sensors (`standardise_by_sensor`), and what an image does not have counts as average.
    Images without a hit are left out: those of a sensor are equal, so that each would be in the balls of all others.

    Parameters
    ----------
    ours, theirs : ImageFeatures
        `theirs` is the reference.

    Returns
    -------
    NeighbourScores or None
        None if a sample has five such images or fewer.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    n_events = min(len(ours.values), len(theirs.values), MAX_EVENTS_OF_NEIGHBOURS)
    values = ours.values[:n_events], theirs.values[:n_events]
    rows = [
        np.nan_to_num(standardised[of_sample[..., _OCCUPANCY] > 0])
        for standardised, of_sample in zip(standardise_by_sensor(*values), values, strict=True)
    ]
    n_images = min(map(len, rows))
    if n_images <= N_NEIGHBOURS:
        return None
    return score_neighbours(*(each[:n_images] for each in rows))


def score_neighbours(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> NeighbourScores:
    r"""Compute precision, recall, density and coverage of points in the space of features.

    With our points y_j (j = 1 … M), the reference's x_i (i = 1 … N), and the distance r(x) of a point to its k-th
    neighbour in its own sample:

    - precision = 1/M sum_j [y_j lies within r(x_i) of x_i for some i]
    - recall    = 1/N sum_i [x_i lies within r(y_j) of y_j for some j]
    - density   = 1/(kM) sum_j sum_i [y_j lies within r(x_i) of x_i]
    - coverage  = 1/N sum_i [y_j lies within r(x_i) of x_i for some j]

    For equal distributions without equal points the expected density is 1 and the expected coverage is 1 minus the
    product, over m = 0 … k - 1, of (N - 1 - m) / (M + N - 1 - m) (Naeem et al., ICML 2020, section 3.3); precision and
    recall have no such value.

    Parameters
    ----------
    ours, theirs : ndarray of float32, shapes (M, features) and (N, features)
        More than five points each, without NaN. `theirs` is the reference.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    require("sklearn", extra="validate", purpose="A comparison of neighbours")
    from sklearn.metrics import pairwise_distances_chunked
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        our_radii, their_radii = _measure_radii(ours), _measure_radii(theirs)
        n_balls = np.zeros(len(ours), dtype=np.int64)
        is_covered: list[bool] = []
        is_recalled: list[bool] = []
        for distances in pairwise_distances_chunked(theirs, ours, working_memory=_CHUNK_MIB):
            start = len(is_covered)
            is_in_their_ball = distances <= their_radii[start : start + len(distances), None]
            n_balls += is_in_their_ball.sum(axis=0)
            is_covered.extend(is_in_their_ball.any(axis=1))
            is_recalled.extend((distances <= our_radii).any(axis=1))
    n_ours, n_theirs, places = len(ours), len(theirs), np.arange(N_NEIGHBOURS)
    return NeighbourScores(
        images=n_ours,
        precision=float((n_balls > 0).mean()),
        recall=float(np.mean(is_recalled)),
        density=float(n_balls.mean() / N_NEIGHBOURS),
        coverage=float(np.mean(is_covered)),
        expected_coverage=float(1 - np.prod((n_theirs - 1 - places) / (n_ours + n_theirs - 1 - places))),
    )


def _measure_radii(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure the distance of each point to its k-th nearest neighbour, itself not counted."""
    from sklearn.neighbors import NearestNeighbors

    distances, _indices = NearestNeighbors(n_neighbors=N_NEIGHBOURS, algorithm="brute").fit(points).kneighbors()
    return np.asarray(distances[:, -1])
