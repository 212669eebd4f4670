"""The kernels against a plain NumPy version, which they must equal whatever the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxdbg_runtime.digitisation import kernels
from tests.graphs import THRESHOLDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

TABLE: Final = np.array(THRESHOLDS, dtype=np.float32)
AROUND: Final = np.concatenate([np.nextafter(TABLE, np.float32(-2)), TABLE, np.nextafter(TABLE, np.float32(2))])
LIMITS: Final = np.array([-np.inf, np.inf], dtype=np.float32)
BYTE_LIMITS: Final = np.array([0, 255], dtype=np.uint8)
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


def compute_plain_charges(
    images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Count the thresholds that are not greater, and suppress what is below the smallest charge."""
    charges = np.searchsorted(table, images.ravel(), side="right").reshape(images.shape)
    return np.where(images >= table[min_charge - 1], charges, 0).astype(np.uint8)


def run_fill_charges(images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]) -> NDArray[np.uint8]:
    charges = np.full(images.shape, 99, dtype=np.uint8)
    assert kernels.fill_charges(images, table[min_charge - 1], table, LIMITS, charges)
    return charges


def run_find_hits(
    images: NDArray[np.float32] | NDArray[np.uint8], min_charge: int, table: NDArray[np.float32] | NDArray[np.uint8]
) -> tuple[int, list[NDArray[np.uint16]], NDArray[np.uint8]]:
    """Give the number of hits, the places written to, one more than there are, and the charges."""
    sensor_id, row, column = (np.full(images.size + 1, 9999, dtype=np.uint16) for _ in range(3))
    charge = np.zeros(images.size + 1, dtype=np.uint8)
    sensors = np.arange(100, 100 + len(images), dtype=np.uint16)
    limits = LIMITS if images.dtype == np.float32 else BYTE_LIMITS
    n_hits = kernels.find_hits(images, table[min_charge - 1], table, limits, sensors, sensor_id, row, column, charge)
    return n_hits, [sensor_id, row, column], charge


def check_against_plain(images: NDArray[np.float32], min_charge: int, table: NDArray[np.float32]) -> None:
    expected = compute_plain_charges(images, min_charge, table)
    assert np.array_equal(run_fill_charges(images, min_charge, table), expected)
    n_hits, places, charge = run_find_hits(images, min_charge, table)
    assert n_hits == np.count_nonzero(expected)
    # np.nonzero gives the hits in the order of image, row, column.
    image, row, column = np.nonzero(expected)
    for found, place in zip(places, (image + 100, row, column), strict=True):
        assert np.array_equal(found[:n_hits], place)
        assert np.all(found[n_hits:] == 9999)
    assert np.array_equal(charge[:n_hits], expected[expected > 0])


@given(images=IMAGES, min_charge=MIN_CHARGES)
@example(images=np.empty((0, 5, 7), np.float32), min_charge=1)
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
    below, at, above = run_fill_charges(images, 1, TABLE)[0]
    assert below.tolist() == list(range(255))
    assert at.tolist() == above.tolist() == list(range(1, 256))


def test_compute_charge_counts_the_thresholds_that_are_not_greater() -> None:
    for value in np.concatenate([AROUND, ENDS]):
        assert kernels.compute_charge(value, TABLE) == np.count_nonzero(value >= TABLE)


@pytest.mark.parametrize(
    ("value", "charge"), [(-1.0, 0), (-np.inf, 0), (np.inf, 255), (1.0, 255), (-0.75, 1), (np.float32(-0.751), 0)]
)
def test_images_of_one_value(value: float, charge: int) -> None:
    images = np.full((2, 3, 4), value, dtype=np.float32)
    check_against_plain(images, 1, TABLE)
    assert np.all(run_fill_charges(images, 1, TABLE) == charge)


@given(
    place=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6)),
    background=st.sampled_from([-1.0, 0.5, float("inf"), float("-inf")]),
    min_charge=MIN_CHARGES,
)
def test_a_nan_is_found_wherever_it_stands(place: tuple[int, int, int], background: float, min_charge: int) -> None:
    images = np.full((4, 5, 7), background, dtype=np.float32)
    images[place] = np.nan
    threshold = TABLE[min_charge - 1]
    assert not kernels.fill_charges(images, threshold, TABLE, LIMITS, np.zeros(images.shape, dtype=np.uint8))
    assert run_find_hits(images, min_charge, TABLE)[0] == -1


@given(
    place=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 6)),
    background=st.sampled_from([-1.0, 0.5]),
    value=st.sampled_from([-np.inf, -1e30, -1.5, 1.5, 1e30, np.inf]),
    min_charge=MIN_CHARGES,
)
def test_a_value_beyond_the_limits_is_found_wherever_it_stands(
    place: tuple[int, int, int], background: float, value: float, min_charge: int
) -> None:
    limits = np.array([-1.25, 1.25], dtype=np.float32)
    images = np.full((4, 5, 7), background, dtype=np.float32)
    charges, threshold, places = (
        np.zeros(images.shape, np.uint8),
        TABLE[min_charge - 1],
        np.zeros(images.size, np.uint16),
    )
    for edge in (1.25, -1.25):
        images[place] = edge
        assert kernels.fill_charges(images, threshold, TABLE, limits, charges)
        assert charges[place] == (255 if edge > 0 else 0)
    images[place] = value
    assert not kernels.fill_charges(images, threshold, TABLE, limits, charges)
    rest = places[:4], places.copy(), places.copy(), places.copy(), charges.reshape(-1)
    assert kernels.find_hits(images, threshold, TABLE, limits, *rest) == -1


@given(
    charges=SHAPES.flatmap(lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 255))),
    min_charge=MIN_CHARGES,
)
def test_charges_are_read_as_tanh_values_are(charges: NDArray[np.uint8], min_charge: int) -> None:
    thresholds = np.arange(1, 256, dtype=np.uint8)
    suppressed = np.where(charges >= min_charge, charges, 0)
    filled = np.full(charges.shape, 99, dtype=np.uint8)
    assert kernels.fill_charges(charges, thresholds[min_charge - 1], thresholds, BYTE_LIMITS, filled)
    assert np.array_equal(filled, suppressed)
    n_hits, places, charge = run_find_hits(charges, min_charge, thresholds)
    assert n_hits == np.count_nonzero(suppressed)
    assert np.array_equal(np.array(places)[:, :n_hits] - [[100], [0], [0]], np.nonzero(suppressed))
    assert np.array_equal(charge[:n_hits], suppressed[suppressed > 0])


@pytest.mark.parametrize("n_columns", [1, 7, 8, 9, 63, 64, 65, 768])
def test_every_column_is_found_where_it_stands(n_columns: int) -> None:
    images = np.full((n_columns, 1, n_columns), -1, dtype=np.float32)
    images[np.arange(n_columns), 0, np.arange(n_columns)] = 0.5
    n_hits, (sensor_id, row, column), _ = run_find_hits(images, 1, TABLE)
    assert n_hits == n_columns
    assert column[:n_hits].tolist() == (sensor_id[:n_hits] - 100).tolist() == list(range(n_columns))
    assert not row[:n_hits].any()


def test_images_that_cannot_be_written_to_are_read() -> None:
    images = np.full((1, 2, 3), 0.5, dtype=np.float32)
    images.flags.writeable = False
    check_against_plain(images, 1, TABLE)
