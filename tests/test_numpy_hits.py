"""Hits of images of tanh values against a plain NumPy version, which they must equal whatever the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxdbg_runtime.digitisation.numpy_hits import TANH_LIMITS, HitFinder
from tests.graphs import THRESHOLDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE: Final = np.array(THRESHOLDS, dtype=np.float32)
AROUND: Final = np.clip(
    np.concatenate([np.nextafter(TABLE, np.float32(-2)), TABLE, np.nextafter(TABLE, np.float32(2))]), *TANH_LIMITS
)
ENDS: Final = np.array([-1, -0.0, 0, 1, *TANH_LIMITS], dtype=np.float32)
VALUES: Final = st.one_of(st.floats(-1, 1, width=32), st.sampled_from(AROUND.tolist()), st.sampled_from(ENDS.tolist()))
SHAPES: Final = st.tuples(st.integers(0, 40), st.integers(1, 5), st.sampled_from([8, 16, 24]))
IMAGES: Final = SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=VALUES, fill=VALUES))
MIN_CHARGES: Final = st.integers(1, 255)


def check_against_plain(images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]) -> None:
    hits = HitFinder(table, min_charge).find_hits(images)
    charges = np.searchsorted(table, images.ravel(), side="right")
    expected = np.flatnonzero(images.ravel() >= table[min_charge - 1])
    assert hits is not None
    assert [each.dtype.name for each in hits] == ["int64", "uint8"]
    assert np.array_equal(hits.pixel, expected)
    assert np.array_equal(hits.charge, charges[expected])


@given(images=IMAGES, min_charge=MIN_CHARGES)
@example(images=np.empty((0, 5, 8), np.float32), min_charge=1)
@example(images=np.ones((2, 5, 8), np.float32), min_charge=255)
def test_hits_equal_the_plain_version(images: NDArray[np.float32], min_charge: int) -> None:
    check_against_plain(images, min_charge, TABLE)


@given(images=IMAGES, min_charge=MIN_CHARGES, cut=st.floats(-1, 1, width=32, exclude_min=True, exclude_max=True))
def test_they_do_with_a_cut_that_lifts_the_lower_thresholds(
    images: NDArray[np.float32], min_charge: int, cut: float
) -> None:
    lifted = np.maximum(TABLE, np.nextafter(np.float32(cut), np.float32(np.inf)))
    check_against_plain(images, min_charge, lifted)


@given(
    steps=hnp.arrays(np.int64, 255, elements=st.integers(1, 2**13)), first=st.integers(1, 2**29), seed=st.integers(0, 9)
)
def test_they_do_with_thresholds_that_share_buckets(steps: NDArray[np.int64], first: int, seed: int) -> None:
    # Positive float32 values are in the order of their bit patterns.
    table = (first + np.cumsum(steps)).astype(np.uint32).view(np.float32)
    images = np.random.default_rng(seed).choice(np.concatenate([table, ENDS]), (2, 4, 8))
    check_against_plain(images, 1, table)


@pytest.mark.parametrize("min_charge", [1, 2, 7, 254, 255])
def test_every_threshold_and_its_neighbours(min_charge: int) -> None:
    padded = np.append(AROUND, np.full(3, -1, np.float32)).reshape(1, 3, 256)
    check_against_plain(padded, min_charge, TABLE)


@pytest.mark.parametrize("n_images", [1, 2, 3, 39, 40])
def test_they_do_for_any_batch(n_images: int) -> None:
    images = np.random.default_rng(n_images).uniform(-1, 1, (n_images, 250, 768)).astype(np.float32)
    check_against_plain(images, 1, TABLE)


@given(
    place=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 7)),
    background=st.sampled_from([-1.0, 0.5, *TANH_LIMITS.tolist()]),
    value=st.sampled_from([np.nan, -np.inf, -1e30, -1.5, -1.00001, 1.00001, 1.5, 1e30, np.inf]),
    min_charge=MIN_CHARGES,
)
def test_a_value_that_no_tanh_gives_is_found_wherever_it_stands(
    place: tuple[int, int, int], background: float, value: float, min_charge: int
) -> None:
    images = np.full((4, 5, 8), background, dtype=np.float32)
    finder = HitFinder(TABLE, min_charge)
    assert finder.find_hits(images) is not None
    images[place] = value
    assert finder.find_hits(images) is None


def test_images_that_cannot_be_written_to_are_read() -> None:
    images = np.full((1, 2, 8), 0.5, dtype=np.float32)
    images.flags.writeable = False
    check_against_plain(images, 1, TABLE)
