"""The thresholds and the runtime's charges against PyTorch's chain of clamps and powers: not one charge differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch

from export.charge import compute_charges, cut_thresholds, find_charge_thresholds
from pxdbg_runtime.digitisation.numpy_hits import HitFinder

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_NEIGHBOURS: Final = 4096
N_RANDOM: Final = 4_000_000
ONE_BITS: Final = 0x3F800000
"""Bit pattern of 1.0 as float32; smaller non-negative values have smaller bit patterns."""


@pytest.fixture(scope="module")
def thresholds() -> NDArray[np.float32]:
    return find_charge_thresholds()


def charges_of_pytorch(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Compute charges among thousands of other values, as in an image."""
    assert len(values) >= 8192
    charges: NDArray[np.uint8] = compute_charges(torch.from_numpy(values)).numpy()
    return charges


def charges_of_runtime(values: NDArray[np.float32], thresholds: NDArray[np.float32]) -> NDArray[np.uint8]:
    padding = np.full(-len(values) % 8, -1, dtype=np.float32)
    hits = HitFinder(thresholds, 1).find_hits(np.concatenate([values, padding]).reshape(1, 1, -1))
    assert hits is not None
    charges = np.zeros(len(values), dtype=np.uint8)
    charges[hits.pixel] = hits.charge
    return charges


def neighbours(thresholds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Collect each threshold and its float32 neighbours on both sides, within [-1, 1]."""
    found = [thresholds]
    for direction in (-np.inf, np.inf):
        value = thresholds
        for _ in range(N_NEIGHBOURS):
            value = np.nextafter(value, np.float32(direction))
            found.append(value)
    values = np.concatenate(found)
    return values[np.abs(values) <= 1]


def random_values(seed: int) -> NDArray[np.float32]:
    """Draw values uniform in [-1, 1], and values uniform over the bit patterns of float32 in [-1, 1]."""
    rng = np.random.default_rng(seed)
    uniform = rng.uniform(-1, 1, N_RANDOM).astype(np.float32)
    magnitudes = rng.integers(0, ONE_BITS, N_RANDOM, endpoint=True, dtype=np.uint32).view(np.float32)
    return np.concatenate([uniform, np.where(rng.random(N_RANDOM) < 0.5, -magnitudes, magnitudes)])


def test_thresholds_ascend_strictly_from_charge_one_to_the_end(thresholds: NDArray[np.float32]) -> None:
    assert thresholds.shape == (255,)
    assert thresholds.dtype == np.float32
    assert np.all(np.diff(thresholds) > 0)
    assert thresholds[0] == -0.75
    assert thresholds[-1] == np.nextafter(np.float32(1), np.float32(0)), "halved and shifted, it rounds to 1"


def test_thresholds_lie_where_the_transform_is_inverted(thresholds: NDArray[np.float32]) -> None:
    """c = 256**x - 1 and x = t/2 + 1/2, solved for t in float64."""
    inverted = 2 * np.log(np.arange(2, 257)) / np.log(256) - 1
    assert np.abs(thresholds.astype(np.float64) - inverted).max() < 1e-6


def test_thresholds_are_the_first_values_of_their_charges(thresholds: NDArray[np.float32]) -> None:
    padding = np.zeros(8192, dtype=np.float32)
    at = charges_of_pytorch(np.concatenate([thresholds, padding]))[:255]
    below = charges_of_pytorch(np.concatenate([np.nextafter(thresholds, np.float32(-2)), padding]))[:255]
    assert at.tolist() == list(range(1, 256))
    assert below.tolist() == list(range(255))


@pytest.mark.parametrize(
    ("value", "charge"), [(-1.0, 0), (-0.76, 0), (-0.75, 1), (-0.25, 7), (0.0, 15), (-0.0, 15), (1.0, 255)]
)
def test_charges_of_known_values(value: float, charge: int, thresholds: NDArray[np.float32]) -> None:
    values = np.full(8192, value, dtype=np.float32)
    assert np.all(charges_of_pytorch(values) == charge)
    assert np.all(charges_of_runtime(values, thresholds) == charge)


def test_values_beyond_the_range_of_tanh_are_clamped() -> None:
    values = np.resize(np.array([-np.inf, -3, -1.0001, 1.0001, 3, np.inf], dtype=np.float32), 8192)
    expected = np.resize(np.array([0, 0, 0, 255, 255, 255], dtype=np.uint8), 8192)
    assert np.array_equal(charges_of_pytorch(values), expected)


CUT: Final = np.float32(-0.26)
"""Of IEA-GAN: every value that is not greater becomes -1, then the transform is the same."""


def test_values_up_to_the_cut_are_empty_and_six_is_the_smallest_charge_beyond(thresholds: NDArray[np.float32]) -> None:
    values = np.concatenate([neighbours(CUT.reshape(1)), random_values(seed=12)[:100_000]])
    charges = compute_charges(torch.from_numpy(values), float(CUT)).numpy()
    assert np.array_equal(charges, np.where(values > CUT, charges_of_pytorch(values), 0))
    assert np.unique(charges)[:3].tolist() == [0, 6, 7]
    table = cut_thresholds(thresholds, float(CUT))
    assert np.array_equal(charges, np.searchsorted(table, values, side="right"))
    assert np.array_equal(charges, charges_of_runtime(values, table))


def test_without_a_cut_the_thresholds_are_the_same(thresholds: NDArray[np.float32]) -> None:
    assert cut_thresholds(thresholds, None) is thresholds
    assert np.array_equal(cut_thresholds(thresholds, -0.75)[1:], thresholds[1:])
    assert cut_thresholds(thresholds, -0.75)[0] == np.nextafter(np.float32(-0.75), np.float32(0))


@pytest.mark.slow
def test_the_runtime_equals_pytorch_on_ten_million_values(thresholds: NDArray[np.float32]) -> None:
    values = np.concatenate([neighbours(thresholds), random_values(seed=11)])
    assert len(values) > 10_000_000
    differing = charges_of_runtime(values, thresholds) != charges_of_pytorch(values)
    assert np.count_nonzero(differing) == 0, values[differing][:10]


def test_charges_keep_the_shape_and_are_bytes() -> None:
    charges = compute_charges(torch.zeros(3, 250, 768))
    assert charges.shape == (3, 250, 768)
    assert charges.dtype == torch.uint8
    assert bool((charges == 15).all())
