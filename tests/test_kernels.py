"""The kernel for images of charges against a plain NumPy version, which it must equal whatever the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pxdbg_runtime.digitisation import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES: Final = st.tuples(st.integers(0, 40), st.integers(1, 5), st.integers(1, 17))
IMAGES: Final = SHAPES.flatmap(
    lambda shape: hnp.arrays(np.uint8, shape, elements=st.integers(0, 255), fill=st.integers(0, 255))
)


def check_against_plain(images: NDArray[np.uint8], min_charge: int) -> None:
    sensor_id, row, column = (np.full(images.size + 1, 9999, dtype=np.uint16) for _ in range(3))
    charge = np.zeros(images.size + 1, dtype=np.uint8)
    sensors = np.arange(100, 100 + len(images), dtype=np.uint16)
    n_hits = kernels.find_hits(images, min_charge, sensors, sensor_id, row, column, charge)
    # np.nonzero gives the hits in the order of image, row, column.
    image, u_cell, v_cell = np.nonzero(images >= min_charge)
    assert n_hits == len(image)
    for found, place in zip((sensor_id, row, column), (image + 100, u_cell, v_cell), strict=True):
        assert np.array_equal(found[:n_hits], place)
        assert np.all(found[n_hits:] == 9999)
    assert np.array_equal(charge[:n_hits], images[images >= min_charge])


@given(images=IMAGES, min_charge=st.integers(1, 255))
@example(images=np.empty((0, 5, 7), np.uint8), min_charge=1)
@example(images=np.full((2, 3, 4), 255, np.uint8), min_charge=255)
def test_hits_equal_the_plain_version(images: NDArray[np.uint8], min_charge: int) -> None:
    check_against_plain(images, min_charge)


@pytest.mark.parametrize("n_columns", [1, 7, 8, 9, 63, 64, 65, 768])
def test_every_column_is_found_where_it_stands(n_columns: int) -> None:
    images = np.zeros((n_columns, 1, n_columns), dtype=np.uint8)
    images[np.arange(n_columns), 0, np.arange(n_columns)] = 9
    check_against_plain(images, 9)
    check_against_plain(images, 10)


def test_images_that_cannot_be_written_to_are_read() -> None:
    images = np.full((1, 2, 3), 50, dtype=np.uint8)
    images.flags.writeable = False
    check_against_plain(images, 1)
