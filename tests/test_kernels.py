"""The kernels against a plain NumPy version, which they must equal whatever the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxdbg_runtime import kernels
from tests.graphs import THRESHOLDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE: Final = np.array(THRESHOLDS, dtype=np.float32)
AROUND: Final = np.concatenate([np.nextafter(TABLE, np.float32(-2)), TABLE, np.nextafter(TABLE, np.float32(2))])
ENDS: Final = np.array([-np.inf, -1, -0.0, 0, 1, np.inf], dtype=np.float32)
VALUES: Final = st.one_of(
    st.floats(-1, 1, width=32),
    st.sampled_from(AROUND.tolist()),
    st.sampled_from(ENDS.tolist()),
    st.floats(allow_nan=False, width=32),
)
SHAPES: Final = st.tuples(st.integers(0, 40), st.integers(1, 5), st.integers(1, 7))
IMAGES: Final = SHAPES.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=VALUES, fill=VALUES))
MIN_CHARGES: Final = st.integers(1, 255)


def plain_charges(images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Count the thresholds that are not greater, and suppress what is below the smallest charge."""
    charges = np.searchsorted(table, images.ravel(), side="right").reshape(images.shape)
    return np.where(images >= table[min_charge - 1], charges, 0).astype(np.uint8)


def filled_charges(images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]) -> NDArray[np.uint8]:
    charges = np.full(images.shape, 99, dtype=np.uint8)
    assert kernels.fill_charges(images, table[min_charge - 1], table, charges)
    return charges


def filled_hits(
    images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]
) -> tuple[NDArray[np.int64], list[NDArray[np.uint16]], NDArray[np.uint8]]:
    counts = np.full(len(images), -1, dtype=np.int64)
    kernels.count_hits(images, table[min_charge - 1], counts)
    image, row, column = (np.full(counts.sum(), 9999, dtype=np.uint16) for _ in range(3))
    charge = np.zeros(counts.sum(), dtype=np.uint8)
    assert kernels.fill_hits(images, table[min_charge - 1], table, image, row, column, charge)
    return counts, [image, row, column], charge


def check_against_plain(images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]) -> None:
    expected = plain_charges(images, min_charge, table)
    assert np.array_equal(filled_charges(images, min_charge, table), expected)
    counts, places, charge = filled_hits(images, min_charge, table)
    assert counts.tolist() == [np.count_nonzero(image) for image in expected]
    # np.nonzero gives the hits in the order of image, row, column.
    for found, place in zip(places, np.nonzero(expected), strict=True):
        assert np.array_equal(found, place)
    assert np.array_equal(charge, expected[expected > 0])


@given(images=IMAGES, min_charge=MIN_CHARGES)
def test_charges_and_hits_equal_the_plain_version(images: NDArray[np.float32], min_charge: int) -> None:
    check_against_plain(images, min_charge, TABLE)


@given(images=IMAGES, min_charge=MIN_CHARGES, cut=st.floats(-1, 1, width=32))
def test_they_do_with_a_cut_that_lifts_the_lower_thresholds(
    images: NDArray[np.float32], min_charge: int, cut: float
) -> None:
    lifted = np.maximum(TABLE, np.nextafter(np.float32(cut), np.float32(np.inf)))
    check_against_plain(images, min_charge, lifted)


@pytest.mark.parametrize("n_images", range(1, 41))
def test_they_do_for_any_batch(n_images: int) -> None:
    images = np.random.default_rng(n_images).uniform(-1, 1, (n_images, 3, 11)).astype(np.float32)
    check_against_plain(images, 1, TABLE)
    check_against_plain(images, 100, TABLE)


@pytest.mark.parametrize("min_charge", [1, 2, 7, 254, 255])
def test_every_threshold_and_its_neighbours(min_charge: int) -> None:
    images = AROUND.reshape(1, 3, 255)
    check_against_plain(images, min_charge, TABLE)
    below, at, above = filled_charges(images, 1, TABLE)[0]
    assert below.tolist() == list(range(255))
    assert at.tolist() == above.tolist() == list(range(1, 256))


def test_charge_of_counts_the_thresholds_that_are_not_greater() -> None:
    for value in np.concatenate([AROUND, ENDS]):
        assert kernels.charge_of(value, TABLE) == np.count_nonzero(value >= TABLE)


@pytest.mark.parametrize(
    ("value", "charge"), [(-1.0, 0), (-np.inf, 0), (np.inf, 255), (1.0, 255), (-0.75, 1), (np.float32(-0.751), 0)]
)
def test_images_of_one_value(value: float, charge: int) -> None:
    images = np.full((2, 3, 4), value, dtype=np.float32)
    check_against_plain(images, 1, TABLE)
    assert np.all(filled_charges(images, 1, TABLE) == charge)


@given(image=st.integers(0, 39), row=st.integers(0, 4), column=st.integers(0, 6), value=st.sampled_from([-1.0, 0.5]))
def test_one_pixel_among_others(image: int, row: int, column: int, value: float) -> None:
    images = np.full((40, 5, 7), -1, dtype=np.float32)
    images[image, row, column] = value
    counts, places, charge = filled_hits(images, 1, TABLE)
    is_hit = value > 0
    assert counts.sum() == counts[image] == is_hit
    assert [place.tolist() for place in places] == ([[image], [row], [column]] if is_hit else [[], [], []])
    assert len(charge) == is_hit


@given(
    place=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6)),
    background=st.sampled_from([-1.0, 0.5, float("inf"), float("-inf")]),
    min_charge=MIN_CHARGES,
)
def test_a_nan_is_found_wherever_it_stands(place: tuple[int, int, int], background: float, min_charge: int) -> None:
    images = np.full((4, 5, 7), background, dtype=np.float32)
    images[place] = np.nan
    threshold = TABLE[min_charge - 1]
    assert not kernels.fill_charges(images, threshold, TABLE, np.zeros(images.shape, dtype=np.uint8))
    counts = np.zeros(4, dtype=np.int64)
    kernels.count_hits(images, threshold, counts)
    n_hits = int(counts.sum())
    assert n_hits == (140 if background > 0 and background >= threshold else 1)
    image, row, column = (np.zeros(n_hits, dtype=np.uint16) for _ in range(3))
    assert not kernels.fill_hits(images, threshold, TABLE, image, row, column, np.zeros(n_hits, dtype=np.uint8))


def test_no_images_at_all() -> None:
    check_against_plain(np.empty((0, 5, 7), dtype=np.float32), 1, TABLE)


def test_images_that_cannot_be_written_to_are_read() -> None:
    images = np.full((1, 2, 3), 0.5, dtype=np.float32)
    images.flags.writeable = False
    check_against_plain(images, 1, TABLE)
