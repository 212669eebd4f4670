from __future__ import annotations

import numpy as np
import pytest

from artifacts.standins.marginals import SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE, mean_occupancies
from artifacts.standins.simulation import occupancies_of_events, simulated_images
from pxdbg_runtime.sensors import N_U_CELLS, N_V_CELLS, SENSORS

LAYERS = np.array([sensor.layer for sensor in SENSORS])


def test_sensors_have_the_mean_occupancies_of_their_layers() -> None:
    means = mean_occupancies()
    assert means[LAYERS == 1].mean() == pytest.approx(0.0149, rel=0.01)
    assert means[LAYERS == 2].mean() == pytest.approx(0.0051, rel=0.01)


def test_occupancies_spread_around_the_means() -> None:
    occupancies = occupancies_of_events(20_000, np.random.default_rng(1))
    assert occupancies.mean(0) == pytest.approx(mean_occupancies(), rel=0.005)
    relative = occupancies.std(0) / occupancies.mean(0)
    assert relative[LAYERS == 1] == pytest.approx(0.0648, rel=0.03)
    assert relative[LAYERS == 2] == pytest.approx(0.1129, rel=0.03)


def test_images_have_the_occupancy_and_the_spectrum_asked_for() -> None:
    rng = np.random.default_rng(2)
    occupancies = occupancies_of_events(1, rng).ravel()
    images = simulated_images(occupancies, LAYERS, rng)
    assert images.shape == (40, N_U_CELLS, N_V_CELLS)
    assert not ((images > 0) & (images < 7)).any()
    assert (images > 0).mean((1, 2)) == pytest.approx(occupancies, rel=0.01)
    hits = np.sort(images[images > 0]).astype(np.float64)
    cumulative = np.searchsorted(hits, np.arange(7, 256)) / len(hits)
    expected = np.interp(np.arange(7, 256), SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE)
    assert np.abs(cumulative - expected).max() < 0.015


def test_the_same_seed_gives_the_same_images() -> None:
    occupancies, layers = np.array([0.01, 0.005]), np.array([1, 2])
    first = simulated_images(occupancies, layers, np.random.default_rng(3))
    again = simulated_images(occupancies, layers, np.random.default_rng(3))
    other = simulated_images(occupancies, layers, np.random.default_rng(4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
