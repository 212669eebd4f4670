"""Histograms of digits, against NumPy on the images of each event."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.ndimage

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError, MissingPackageError
from pxdbg_runtime.plots.histograms import (
    fill_charges,
    fill_cluster_sizes,
    fill_hit_map,
    fill_occupancies,
    split_events,
)
from tests.digit_files import digits_of, random_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def events() -> list[Digits]:
    """Make four events, one without digits."""
    rng = np.random.default_rng(8)
    return [random_digits(rng, n_hits, event) for event, n_hits in ((3, 60_000), (4, 0), (9, 1), (11, 20_000))]


@pytest.fixture(scope="module")
def images(events: list[Digits]) -> NDArray[np.uint8]:
    return np.stack([digits.to_images() for digits in events])


def test_digits_are_split_into_events(events: list[Digits]) -> None:
    """Without digits, an event cannot be seen among others."""
    joined = Digits.concatenate([events[3], events[0], events[2]])
    assert list(split_events(joined)) == [events[0], events[2], events[3]]
    assert list(split_events(iter(events))) == events
    assert list(split_events(Digits.empty())) == [Digits.empty()]


def test_an_item_of_two_events_is_refused(events: list[Digits]) -> None:
    with pytest.raises(ArgumentValueError, match="hold one event in each item, but one item has digits of several"):
        fill_occupancies([events[0], Digits.concatenate([events[2], events[3]])])


def test_charges(events: list[Digits], images: NDArray[np.uint8]) -> None:
    histogram = fill_charges(events)
    assert histogram.values().tolist() == np.bincount(images.ravel(), minlength=256)[1:].tolist()
    assert histogram.axes["charge"].label == "charge (ADU)"
    assert histogram[{"charge": 0}] == np.count_nonzero(images == 1)
    assert fill_charges(Digits.concatenate(events)) == histogram


@pytest.mark.parametrize("min_charge", [1, 7, 255])
def test_occupancies(events: list[Digits], images: NDArray[np.uint8], min_charge: int) -> None:
    percent = 100 * (images >= min_charge).mean(axis=(2, 3))
    histogram = fill_occupancies(events, min_charge=min_charge)
    assert list(histogram.axes["sensor"]) == [str(sensor) for sensor in SENSORS]
    assert histogram.counts().tolist() == [4] * N_SENSORS
    assert histogram.values() == pytest.approx(percent.mean(axis=0))
    assert histogram.variances() == pytest.approx(percent.var(axis=0, ddof=1) / 4)


@pytest.mark.parametrize("min_charge", [0, 256, 7.0])
def test_an_invalid_cut(min_charge: Any) -> None:  # noqa: ANN401
    with pytest.raises((ArgumentTypeError, ArgumentValueError), match="min_charge must"):
        fill_occupancies(Digits.empty(), min_charge=min_charge)


@pytest.mark.parametrize("sensor", ["1.1.1", 19_520, SENSORS[7]])
def test_hit_maps(events: list[Digits], images: NDArray[np.uint8], sensor: Any) -> None:  # noqa: ANN401
    index = {"1.1.1": 0, 19_520: 39}.get(sensor, 7)
    hits = fill_hit_map(events, sensor)
    assert (hits.axes["v_cell"].size, hits.axes["u_cell"].size) == (N_V_CELLS, N_U_CELLS)
    assert np.array_equal(hits.values(), np.count_nonzero(images[:, index], axis=0).T)
    charges = fill_hit_map(events[0], sensor, weigh_by_charge=True)
    assert np.array_equal(charges.values(), images[0, index].T)


def test_there_is_no_such_sensor() -> None:
    with pytest.raises(ArgumentValueError, match=r"No PXD sensor has the name '3\.1\.1'"):
        fill_hit_map(Digits.empty(), "3.1.1")


def test_cluster_sizes(events: list[Digits], images: NDArray[np.uint8]) -> None:
    """Images are labelled one by one; digits may come in any order."""
    sizes: list[int] = []
    for image in images.reshape(-1, N_U_CELLS, N_V_CELLS):
        labels, _n_clusters = scipy.ndimage.label(image, structure=np.ones((3, 3)))
        sizes += np.bincount(labels[labels > 0])[1:].tolist()
    histogram = fill_cluster_sizes(events)
    assert histogram.values(flow=True).tolist() == np.bincount(np.minimum(sizes, 41), minlength=42)[1:].tolist()
    assert histogram.values()[:3].min() > 5
    rng = np.random.default_rng(0)
    assert fill_cluster_sizes([each.select_rows(rng.permutation(len(each))) for each in events]) == histogram


def test_large_clusters_are_in_the_overflow() -> None:
    rows = [(0, 8480, 249, v_cell, 9) for v_cell in range(41)] + [(0, 8512, 0, v_cell, 9) for v_cell in range(40)]
    counts = fill_cluster_sizes(digits_of(rows)).values(flow=True)
    assert {size + 1: int(count) for size, count in enumerate(counts) if count} == {40: 1, 41: 1}


def test_digits_of_other_detectors_are_not_counted() -> None:
    digits = digits_of([(0, 8480, 0, 0, 9), (0, 3 << 13, 0, 0, 9)])
    assert fill_charges(digits).sum() == 1
    assert fill_cluster_sizes(digits).sum(flow=True) == 1
    assert fill_occupancies(digits).values().sum() == pytest.approx(100 / (N_U_CELLS * N_V_CELLS))


@pytest.mark.parametrize(
    "fill", [fill_charges, fill_occupancies, fill_cluster_sizes, lambda d: fill_hit_map(d, "1.1.1")]
)
def test_without_hist(fill: Callable[[Digits], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hist", None)
    expected = r"A histogram needs hist, which is not installed: pip install 'pxdbg-runtime\[plot\]'\."
    with pytest.raises(MissingPackageError, match=expected) as info:
        fill(Digits.empty())
    assert (info.value.package, info.value.extra) == ("hist", "plot")
