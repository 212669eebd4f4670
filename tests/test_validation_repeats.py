"""Repeated patterns: found where they are, and not among random hits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.stats

from pxdbg_runtime import N_SENSORS
from pxdbg_runtime.validation.repeats import (
    COMPARED_IMAGES,
    MIN_TILE_HITS,
    RepeatFinder,
    Repeats,
    expect_busiest,
    measure_pixel_spread,
)
from tests.validation_samples import create_images

if TYPE_CHECKING:
    from numpy.typing import NDArray


def create_random_event(rng: np.random.Generator, n_hits: int = 20_000) -> NDArray[np.uint8]:
    images = create_images()
    images.flat[rng.integers(0, images.size, n_hits)] = rng.integers(7, 256, n_hits)
    return images


def find_repeats(*events: NDArray[np.uint8]) -> Repeats:
    finder = RepeatFinder()
    for images in events:
        add_images(finder, images)
    return finder.find_repeats()


def add_images(finder: RepeatFinder, images: NDArray[np.uint8]) -> None:
    sensor, u_cell, v_cell = np.nonzero(images)
    finder.add(sensor, u_cell, v_cell, images[sensor, u_cell, v_cell])


def test_random_hits_do_not_repeat() -> None:
    rng = np.random.default_rng(1)
    repeats = find_repeats(*(create_random_event(rng, 60_000) for _event in range(3)))
    assert repeats.is_free
    assert (repeats.images, repeats.compared_images) == (120, 120)
    assert repeats.compared_tiles > 1000
    assert repeats.equal_tile_cells == 0


def test_an_image_repeated_on_another_sensor() -> None:
    rng = np.random.default_rng(2)
    first, second = create_random_event(rng), create_random_event(rng)
    second[31] = first[4]
    second[7] = 0
    repeats = find_repeats(first, second)
    assert (repeats.images, repeats.repeated_images) == (79, 1)
    assert not repeats.is_free


@pytest.mark.parametrize("n_hits", [MIN_TILE_HITS - 1, MIN_TILE_HITS])
def test_a_repeated_tile(n_hits: int) -> None:
    events = np.stack([create_images()] * 2)
    events[0, 3, 240:249, 767][:n_hits] = 9
    events[1, 8, 240:249, 767][:n_hits] = 9
    # The same pattern elsewhere is no repetition; other hits make the images differ.
    events[1, 9, 0:9, 15][:n_hits] = 9
    events[1, 8, 100, 100] = 7
    repeats = find_repeats(*events)
    expected = 1 if n_hits >= MIN_TILE_HITS else 0
    assert (repeats.equal_tiles, repeats.equal_tile_cells, repeats.repeated_images) == (expected, expected, 0)
    assert repeats.compared_tiles == 3 * expected
    assert repeats.is_free == (expected == 0)
    assert repeats.busiest_pixel == 2


def test_tiles_with_other_charges_differ() -> None:
    events = np.stack([create_images()] * 3)
    events[:, 0, 16:20, 32:34] = np.array([7, 8, 8], dtype=np.uint8)[:, None, None]
    repeats = find_repeats(*events)
    assert (repeats.equal_tiles, repeats.equal_tile_cells) == (1, 3)


def test_only_the_first_images_are_compared() -> None:
    event = create_images()
    event[0, 0, :8] = 10
    repeats = find_repeats(*[event] * 30)
    assert repeats.compared_images == repeats.busiest_pixel * N_SENSORS == COMPARED_IMAGES
    assert repeats.equal_tiles == 25 * 24 // 2
    assert (repeats.images, repeats.repeated_images) == (30, 29)
    assert repeats.compared_hits == 25 * 8


def test_events_without_hits_are_counted_and_cost_nothing() -> None:
    event = create_images()
    finder = RepeatFinder()
    none = np.empty(0, dtype=np.int64)
    for _ in range(100_000):
        finder.add(none, none, none, np.empty(0, dtype=np.uint8))
    event[0, 0, :8] = 10
    add_images(finder, event)
    repeats = finder.find_repeats()
    assert (repeats.images, repeats.compared_images, repeats.compared_hits) == (1, COMPARED_IMAGES, 0)


@pytest.mark.parametrize("mean", [0.01, 1.0, 9.0])
def test_the_busiest_of_equal_pixels(mean: float) -> None:
    rng = np.random.default_rng(4)
    largest = rng.poisson(mean, (400, 5000)).max(axis=1)
    error = largest.std() / np.sqrt(len(largest))
    assert expect_busiest(mean, 5000) == pytest.approx(largest.mean(), abs=5 * error + 1e-3)
    assert expect_busiest(mean, 1) == pytest.approx(mean)
    below = scipy.stats.poisson.logcdf(np.arange(1000), mean)
    assert expect_busiest(mean, 5000) == pytest.approx((1 - np.exp(5000 * below)).sum(), rel=1e-12)


def test_the_spread_of_pixels() -> None:
    rng = np.random.default_rng(5)
    alike = measure_pixel_spread(rng.poisson(50.0, 100_000))
    assert alike.variance_ratio == pytest.approx(1, abs=0.03)
    assert alike.excess_percent < 3
    rates = 50.0 * (1 + 0.2 * rng.standard_normal(100_000)).clip(0)
    assert measure_pixel_spread(rng.poisson(rates)).excess_percent == pytest.approx(20, abs=1)
