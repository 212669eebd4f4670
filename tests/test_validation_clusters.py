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
from pxdbg_runtime.validation.clusters import find_clusters, number_clusters

if TYPE_CHECKING:
    from numpy.typing import NDArray


def labelled(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Label the hits of an image, ordered by row and column, as scipy does: from 1 on."""
    labels, _n_clusters = scipy.ndimage.label(image, structure=np.ones((3, 3)))
    return np.asarray(labels[image > 0], dtype=np.int64)


def require_scipys(image: NDArray[np.uint8]) -> None:
    row, column = np.nonzero(image)
    theirs = labelled(image)
    number = np.empty(len(row), dtype=np.int64)
    assert number_clusters(row, column, number) == theirs.max(initial=0)
    # scipy numbers in the order of the first hits too, but does not promise it: pairs must map one to one.
    pairs = set(zip(number.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == len(set(number.tolist())) == len(set(theirs.tolist()))
    sizes, charges = find_clusters(row, column, image[row, column])
    inside = np.arange(1, theirs.max(initial=0) + 1)
    assert sorted(sizes.tolist()) == sorted(np.bincount(theirs)[1:].tolist())
    sums = [int(image[image > 0][theirs == label].sum()) for label in inside]
    assert sorted(zip(sizes.tolist(), charges.tolist(), strict=True)) == sorted(
        zip(np.bincount(theirs)[1:].tolist(), sums, strict=True)
    )


@given(
    image=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.sampled_from([0, 0, 1, 200, 255]),
    )
)
def test_small_images_as_scipy_labels_them(image: NDArray[np.uint8]) -> None:
    require_scipys(image)


@pytest.mark.parametrize("occupancy", [0.002, 0.01, 0.1, 0.4, 0.9])
def test_whole_sensors_as_scipy_labels_them(occupancy: float) -> None:
    rng = np.random.default_rng(3)
    image = rng.integers(1, 256, (N_U_CELLS, N_V_CELLS)) * (rng.random((N_U_CELLS, N_V_CELLS)) < occupancy)
    row, column = np.nonzero(image)
    number = np.empty(len(row), dtype=np.int64)
    theirs = labelled(image.astype(np.uint8))
    assert number_clusters(row, column, number) == theirs.max()
    assert len(np.unique(number * (theirs.max() + 1) + theirs)) == theirs.max()


def test_arms_that_meet_late_are_one_cluster() -> None:
    image = np.array([[1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [1, 0, 1, 0, 1], [0, 1, 0, 1, 0]], dtype=np.uint8)
    row, column = np.nonzero(image)
    sizes, charges = find_clusters(row, column, image[row, column])
    assert (sizes.tolist(), charges.tolist()) == ([11], [11])


def test_no_hits_at_all() -> None:
    nothing = np.empty(0, dtype=np.int64)
    sizes, charges = find_clusters(nothing, nothing, np.empty(0, dtype=np.uint8))
    assert (len(sizes), len(charges)) == (0, 0)
