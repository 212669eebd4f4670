"""What is counted of a sample, against plain NumPy on its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.ndimage

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, Digits
from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats import open_events
from pxdbg_runtime.sensors import PIXELS_PER_SENSOR
from pxdbg_runtime.validation.sample import MAX_CLUSTER_SIZE, Sample, count_sample
from tests.digit_files import each_suffix
from tests.validation_samples import digits_of_images, write_events

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CUT = 7
N_EVENTS = 5


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """Make the charges of five events, the third without any digit."""
    rng = np.random.default_rng(1)
    shape = (N_EVENTS, N_SENSORS, N_U_CELLS, N_V_CELLS)
    made = np.zeros(shape, dtype=np.uint8)
    made.flat[rng.integers(0, made.size, 200_000)] = rng.integers(1, 60, 200_000)
    made[2] = 0
    made[1, 5] = 0
    return made


@pytest.fixture(scope="module")
def sample(images: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Sample:
    path = tmp_path_factory.mktemp("sample") / "digits.parquet"
    write_events(path, [digits_of_images(image, event) for event, image in enumerate(images, 3)])
    return count_sample(open_events(path), "ours", CUT)


def test_counts_are_those_of_the_images_after_the_cut(images: NDArray[np.uint8], sample: Sample) -> None:
    passed = np.where(images >= CUT, images, 0)
    assert sample.hits.tolist() == np.count_nonzero(passed, axis=(2, 3)).tolist()
    assert sample.charge_sums.tolist() == passed.sum(axis=(2, 3), dtype=np.int64).tolist()
    assert np.array_equal(sample.hit_map, np.count_nonzero(passed, axis=0))
    assert sample.digits_before_cut == np.count_nonzero(images)
    assert sample.digits_below_cut == np.count_nonzero(images) - np.count_nonzero(passed)
    assert sample.below_cut_share == pytest.approx(np.mean((images > 0) & (images < CUT)))
    assert np.array_equal(sample.shown_images, passed[0])
    u_profile, v_profile = sample.profiles
    assert u_profile.tolist() == np.count_nonzero(passed, axis=(0, 1, 3)).tolist()
    assert v_profile.tolist() == np.count_nonzero(passed, axis=(0, 1, 2)).tolist()


def test_marginals_are_those_of_the_images(images: NDArray[np.uint8], sample: Sample) -> None:
    passed = np.where(images >= CUT, images, 0)
    marginals = sample.marginals()
    assert marginals.charge_counts.tolist() == np.bincount(passed.ravel(), minlength=256)[CUT:].tolist()
    assert marginals.empty_pixels == np.count_nonzero(passed == 0)
    occupancy = np.count_nonzero(passed, axis=(2, 3)) / PIXELS_PER_SENSOR
    assert marginals.sensor_mean_occupancy == pytest.approx(occupancy.mean(axis=0))
    assert marginals.occupancy_counts.sum() + marginals.occupancy_overflow == N_EVENTS * N_SENSORS
    assert marginals.occupancy_counts[0] == N_SENSORS + 1  # the empty images
    # Sensor 5 has no hit in one event more: its mean is over the images that have one.
    of_images = [image[image > 0].mean() for image in passed[:, 5] if image.any()]
    assert len(of_images) == N_EVENTS - 2
    assert marginals.sensor_mean_charge[5] == pytest.approx(np.mean(of_images))


def test_halves_are_the_even_and_the_odd_events(images: NDArray[np.uint8], sample: Sample) -> None:
    halves = sample.half_marginals()
    assert halves is not None
    passed = np.where(images >= CUT, images, 0)
    # The events are 3 to 7.
    for half, events in zip(halves, ([1, 3], [0, 2, 4]), strict=True):
        chosen = passed[events]
        assert half.charge_counts.tolist() == np.bincount(chosen.ravel(), minlength=256)[CUT:].tolist()
        assert half.mean_occupancy == pytest.approx(np.count_nonzero(chosen) / chosen.size)
    assert [half.name for half in halves] == ["ours, even events", "ours, odd events"]


def test_clusters_are_those_of_each_image(images: NDArray[np.uint8], sample: Sample) -> None:
    sizes = np.zeros(MAX_CLUSTER_SIZE + 1, dtype=np.int64)
    charges: list[int] = []
    for image in images.reshape(-1, N_U_CELLS, N_V_CELLS):
        passed = np.where(image >= CUT, image, 0)
        labels, n_clusters = scipy.ndimage.label(passed, structure=np.ones((3, 3)))
        sizes += np.bincount(np.bincount(labels.ravel())[1:], minlength=len(sizes))
        charges += scipy.ndimage.sum_labels(passed, labels, np.arange(1, n_clusters + 1)).astype(int).tolist()
    assert sample.all_clusters.sizes.tolist() == sizes.tolist()
    expected = np.bincount(charges, minlength=len(sample.all_clusters.charges))
    assert sample.all_clusters.charges.tolist() == expected.tolist()


def test_images_above_the_last_bin_and_a_huge_cluster(tmp_path: Path) -> None:
    image = np.zeros((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
    image[0, :100, :100] = 255
    path = write_events(tmp_path / "digits.npz", [digits_of_images(image, 3)])
    sample = count_sample(open_events(path), "huge", CUT)
    assert sample.marginals().occupancy_overflow == 1
    assert np.flatnonzero(sample.all_clusters.sizes).tolist() == [MAX_CLUSTER_SIZE]
    assert sample.all_clusters.charges[-1] == 1
    assert sample.half_marginals() is None
    assert np.isnan(sample.marginals().sensor_mean_charge[1])


@pytest.mark.parametrize("threshold", [7, 1])
def test_hits_below_the_cut_may_not_be_in_the_file(tmp_path: Path, threshold: int) -> None:
    image = np.zeros((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
    image[0, 0, 0] = 7
    path = write_events(tmp_path / "digits.npz", [digits_of_images(image, 3)], min_charge=threshold)
    share = count_sample(open_events(path), "cut", CUT).below_cut_share
    assert share == (None if threshold == CUT else 0.0)


def test_a_threshold_above_the_cut_is_refused(tmp_path: Path) -> None:
    path = write_events(tmp_path / "digits.npz", [Digits.empty()], min_charge=9)
    with pytest.raises(
        ArgumentValueError, match=r"was made with a threshold of 9 ADU, .* cut at 7 ADU: ask for --min-charge 9"
    ):
        count_sample(open_events(path), "high", CUT)


def test_a_file_of_unknown_origin_is_refused_by_its_smallest_charge(tmp_path: Path) -> None:
    image = np.zeros((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
    image[0, 0, 0] = 12
    path = tmp_path / "digits.npz"
    np.savez(path, **{name: getattr(digits_of_images(image, 3), name) for name in COLUMN_DTYPES})
    expected = r"digits\.npz holds no charge below 12 ADU, so it cannot be cut at 7 ADU: ask for --min-charge 12\.$"
    with pytest.raises(ArgumentValueError, match=expected):
        count_sample(open_events(path), "foreign", CUT)
    assert count_sample(open_events(path), "foreign", 12).digits_before_cut == 1


@each_suffix
def test_a_sample_without_hits_is_refused(tmp_path: Path, suffix: str) -> None:
    image = np.zeros((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
    image[0, 0, 0] = 6
    path = write_events(tmp_path / f"digits{suffix}", [digits_of_images(image, 3), Digits.empty()])
    with pytest.raises(DigitFileError, match="holds no digit of 7 ADU or more: there is nothing to compare"):
        count_sample(open_events(path), "empty", CUT)
