"""The kernel that finds clusters, against scipy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxdbg_runtime import N_U_CELLS, N_V_CELLS
from pxdbg_runtime.digitisation.clusters import number_clusters
from pxdbg_runtime.validation.features import describe_clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray


def require_scipys_clusters(image: NDArray[np.uint8]) -> None:
    row, column = np.nonzero(image)
    labels, n_clusters = scipy.ndimage.label(image, structure=np.ones((3, 3)))
    number = np.empty(len(row), dtype=np.int64)
    assert number_clusters(row, column, number) == n_clusters
    # scipy may number clusters in any order: the pairs must map one to one.
    pairs = set(zip(number.tolist(), labels[row, column].tolist(), strict=True))
    assert len(pairs) == len({ours for ours, _ in pairs}) == len({theirs for _, theirs in pairs}) == n_clusters
    order = [theirs for _, theirs in sorted(pairs)]
    clusters = describe_clusters(np.zeros_like(row), row, column, image[row, column])
    assert clusters.sizes.tolist() == np.bincount(labels.ravel(), minlength=n_clusters + 1)[order].tolist()
    assert clusters.charges.tolist() == list(scipy.ndimage.sum_labels(image, labels, order))


@given(
    image=hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 0, 1, 200, 255])
    )
)
def test_small_images_have_scipys_clusters(image: NDArray[np.uint8]) -> None:
    require_scipys_clusters(image)


@pytest.mark.parametrize("occupancy", [0.002, 0.01, 0.1, 0.4, 0.9])
def test_whole_sensors_have_scipys_clusters(occupancy: float) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(1, 256, (N_U_CELLS, N_V_CELLS)) * (rng.random((N_U_CELLS, N_V_CELLS)) < occupancy)
    require_scipys_clusters(image.astype(np.uint8))


def test_arms_that_meet_late_are_one_cluster() -> None:
    image = np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], dtype=np.uint8)
    row, column = np.nonzero(image)
    clusters = describe_clusters(np.zeros_like(row), row, column, image[row, column])
    assert (clusters.sizes.tolist(), clusters.charges.tolist()) == ([11], [11])


def test_no_hits_at_all() -> None:
    nothing = np.empty(0, dtype=np.int64)
    clusters = describe_clusters(nothing, nothing, nothing, np.empty(0, dtype=np.uint8))
    assert (len(clusters.sizes), len(clusters.charges)) == (0, 0)
