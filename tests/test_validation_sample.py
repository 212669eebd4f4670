"""The counts of a sample, against plain NumPy on its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.ndimage

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.sensors import PIXELS_PER_SENSOR
from pxdbg_runtime.validation.sample import MAX_COUNTED_CLUSTER_SIZE, Sample
from tests.digit_files import each_suffix, list_columns, write_plainly
from tests.validation_samples import build_digits, count_file, create_images, write_events

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CUT = 7
N_EVENTS = 5


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Charges of five events, the third without any digit."""
    rng = np.random.default_rng(1)
    charges = np.zeros((N_EVENTS, N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
    charges.flat[rng.integers(0, charges.size, 200_000)] = rng.integers(1, 60, 200_000)
    charges[2] = 0
    charges[1, 5] = 0
    return charges


@pytest.fixture(scope="module")
def passing(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(images >= CUT, images, 0)


@pytest.fixture(scope="module")
def sample(images: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("sample") / "digits.parquet"
    write_events(path, [build_digits(image, event) for event, image in enumerate(images, 3)])
    return count_file(path, "ours", CUT)


def test_counts_are_those_of_the_images_after_the_cut(
    images: NDArray[np.uint8], passing: NDArray[np.uint8], sample: Sample
) -> None:
    assert sample.hits.tolist() == np.count_nonzero(passing, axis=(2, 3)).tolist()
    assert sample.charge_sums.tolist() == passing.sum(axis=(2, 3), dtype=np.int64).tolist()
    assert np.array_equal(sample.hit_map, np.count_nonzero(passing, axis=0))
    assert sample.digits_before_cut == np.count_nonzero(images)
    assert sample.digits_below_cut == np.count_nonzero(images) - np.count_nonzero(passing)
    assert sample.below_cut_share == pytest.approx(np.mean((images > 0) & (images < CUT)))
    assert np.array_equal(sample.shown_images, passing[0])
    u_profile, v_profile = sample.profiles
    assert u_profile.tolist() == np.count_nonzero(passing, axis=(0, 1, 3)).tolist()
    assert v_profile.tolist() == np.count_nonzero(passing, axis=(0, 1, 2)).tolist()


def test_marginals_are_those_of_the_images(passing: NDArray[np.uint8], sample: Sample) -> None:
    marginals = sample.bin_marginals()
    assert marginals.charge_counts.tolist() == np.bincount(passing.ravel(), minlength=256)[CUT:].tolist()
    assert marginals.empty_pixels == np.count_nonzero(passing == 0)
    occupancy = np.count_nonzero(passing, axis=(2, 3)) / PIXELS_PER_SENSOR
    assert marginals.sensor_mean_occupancy == pytest.approx(occupancy.mean(axis=0))
    assert marginals.occupancy_counts.sum() + marginals.occupancy_overflow == N_EVENTS * N_SENSORS
    assert marginals.occupancy_counts[0] == N_SENSORS + 1  # the empty images
    # Sensor 5 has an additional event without a hit: its mean is over the images that have one.
    of_images = [image[image > 0].mean() for image in passing[:, 5] if image.any()]
    assert len(of_images) == N_EVENTS - 2
    assert marginals.sensor_mean_charge[5] == pytest.approx(np.mean(of_images))


def test_halves_are_the_even_and_the_odd_events(passing: NDArray[np.uint8], sample: Sample) -> None:
    halves = sample.bin_halves()
    assert halves is not None
    # The events are 3 to 7.
    for half, events in zip(halves, ([1, 3], [0, 2, 4]), strict=True):
        chosen = passing[events]
        assert half.charge_counts.tolist() == np.bincount(chosen.ravel(), minlength=256)[CUT:].tolist()
        assert half.mean_occupancy == pytest.approx(np.count_nonzero(chosen) / chosen.size)


def test_clusters_are_those_of_each_image(passing: NDArray[np.uint8], sample: Sample) -> None:
    sizes = np.zeros(MAX_COUNTED_CLUSTER_SIZE + 1, dtype=np.int64)
    charges: list[int] = []
    for image in passing.reshape(-1, N_U_CELLS, N_V_CELLS):
        labels, n_clusters = scipy.ndimage.label(image, structure=np.ones((3, 3)))
        sizes += np.bincount(np.bincount(labels.ravel())[1:], minlength=len(sizes))
        charges += scipy.ndimage.sum_labels(image, labels, np.arange(1, n_clusters + 1)).astype(int).tolist()
    assert sample.all_clusters.sizes.tolist() == sizes.tolist()
    expected = np.bincount(charges, minlength=len(sample.all_clusters.charges))
    assert sample.all_clusters.charges.tolist() == expected.tolist()


def test_images_above_the_last_bin_and_a_huge_cluster(tmp_path: Path) -> None:
    images = create_images()
    images[0, :100, :100] = 255
    sample = count_file(write_events(tmp_path / "digits.npz", [build_digits(images, 3)]), "huge", CUT)
    assert sample.bin_marginals().occupancy_overflow == 1
    assert np.flatnonzero(sample.all_clusters.sizes).tolist() == [MAX_COUNTED_CLUSTER_SIZE]
    assert sample.all_clusters.charges[-1] == 1
    assert sample.bin_halves() is None
    assert np.isnan(sample.bin_marginals().sensor_mean_charge[1])


@pytest.mark.parametrize("threshold", [7, 6, 2, 1])
def test_hits_below_the_cut_may_not_be_in_the_file(tmp_path: Path, threshold: int) -> None:
    digits = build_digits(create_images((0, 0, 0, 7)), 3)
    path = write_events(tmp_path / "digits.npz", [digits], min_charge=threshold)
    assert count_file(path, "cut", CUT).below_cut_share == (0.0 if threshold == 1 else None)


def test_a_file_that_lacks_charges_from_the_cut_on_is_refused(tmp_path: Path) -> None:
    path = write_events(tmp_path / "digits.npz", [Digits.empty()], min_charge=9)
    expected = r"was made with a threshold of 9 ADU, .* cut at 7 ADU: ask for --min-charge 9"
    with pytest.raises(ArgumentValueError, match=expected):
        count_file(path, "high", CUT)
    digits = build_digits(create_images((0, 0, 0, 12)), 3)
    write_plainly(path, list_columns(digits), None)
    expected = r"digits\.npz holds no charge below 12 ADU, so it cannot be cut at 7 ADU: ask for --min-charge 12\.$"
    with pytest.raises(ArgumentValueError, match=expected):
        count_file(path, "foreign", CUT)
    assert count_file(path, "foreign", 12).digits_before_cut == 1


@each_suffix
def test_a_sample_without_hits_is_refused(tmp_path: Path, suffix: str) -> None:
    path = write_events(tmp_path / f"digits{suffix}", [build_digits(create_images((0, 0, 0, 6)), 3), Digits.empty()])
    with pytest.raises(DigitFileError, match="holds no digit of 7 ADU or more: there is nothing to compare"):
        count_file(path, "empty", CUT)
