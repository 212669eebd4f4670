"""The numbers of a validation: which comparisons are made, and the JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS
from pxdbg_runtime.errors import ArgumentValueError
from pxdbg_runtime.validation.marginals import read_marginals
from pxdbg_runtime.validation.report import Report, build_report
from pxdbg_runtime.validation.summary_table import build_columns, build_rows
from tests.validation_samples import (
    build_digits,
    build_marginals_content,
    count_file,
    create_images,
    write_events,
    write_marginals,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.validation.sample import Sample


def count_pairs(folder: Path, name: str, charge: int, seed: int) -> Sample:
    """Count four events with clusters of two hits, each event with more than the one before."""
    rng = np.random.default_rng(seed)
    events = []
    for event in range(4):
        images = create_images()
        sensor, u_cell, v_cell = rng.integers(
            0, [[N_SENSORS], [N_U_CELLS // 3], [N_V_CELLS // 3]], (3, 15_000 + 500 * event)
        )
        images[sensor, 3 * u_cell, 3 * v_cell] = images[sensor, 3 * u_cell, 3 * v_cell + 1] = charge
        events.append(build_digits(images, event))
    return count_file(write_events(folder / f"{name}.npz", events, first_event=0), name)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return count_pairs(tmp_path_factory.mktemp("ours"), "ours", 11, seed=1)


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return count_pairs(tmp_path_factory.mktemp("simulation"), "simulation", 10, seed=2)


def find_text(report: Report, label: str, column: str) -> str:
    (row,) = (row for row in build_rows(report) if row.label == label)
    names = [f"{each.name}: {each.kind}" for each in build_columns(report)]
    return row.cells[names.index(column)].text


def test_everything_is_compared(ours: Sample, simulation: Sample, tmp_path: Path) -> None:
    public = read_marginals(write_marginals(tmp_path / "m.json", build_marginals_content("ours", "two")))
    report = build_report((ours,), (simulation,), (public,))
    assert report.primary == "geant4"
    assert [(each.name, each.role, each.against) for each in report.comparisons] == [
        ("ours", "sample", "geant4"),
        ("simulation", "reference", "geant4"),
        ("ours", "published", "geant4"),
        ("two", "published", "geant4"),
        ("ours", "sample", "simulation"),
        ("ours", "half against half", "ours"),
        ("simulation", "half against half", "simulation"),
    ]
    found = report.find_comparison("ours", "sample", "simulation")
    assert found is not None
    assert found.scores.charge is not None
    assert found.scores.charge.w1 == pytest.approx(1.0)
    assert found.clusters is not None
    assert found.clusters.mean_size_percent == pytest.approx(0, abs=0.5)
    assert found.clusters.mean_charge_percent == pytest.approx(10, abs=0.5)
    assert found.clusters.median_charge_percent == pytest.approx(10)
    # A file and a published generator of one name are two columns, each with its own scores.
    w1 = "charge spectrum: W1 (ADU)"
    assert find_text(report, w1, "ours: sample") != find_text(report, w1, "ours: published generator")
    assert find_text(report, w1, "ours: half against half") == "0.00"
    assert find_text(report, "cluster size: mean / median", "ours: sample") == "2.00 / 2"
    assert find_text(report, "cluster size: mean / median", "two: published generator") == "-"
    assert find_text(report, "cluster charge (ADU): mean / median", "simulation: reference digits") == "20.0 / 20"
    assert find_text(report, "repeated images / tiles", "ours: sample") == f"0 / {ours.repeats.equal_tiles}"


@pytest.mark.parametrize("place", ["sample", "reference", "published reference"])
def test_a_name_that_comes_twice_is_refused(ours: Sample, simulation: Sample, tmp_path: Path, place: str) -> None:
    """Comparisons are found by the names of both sides."""
    public = read_marginals(write_marginals(tmp_path / "m.json", build_marginals_content("IEA-GAN")))
    named = replace(simulation, name="ours" if place == "reference" else "geant4")
    samples = (ours, named) if place == "sample" else (ours,)
    references = (named,) if place == "reference" else ()
    files = (public, public) if place == "published reference" else (public,)
    expected = f"Two samples or references have the name {named.name}: rename one of the files"
    with pytest.raises(ArgumentValueError, match=expected):
        build_report(samples, references, files)


def draw_bars(*lengths: int) -> NDArray[np.uint8]:
    """Draw the images of an event with one cluster of so many hits of 20 ADU on each of the first sensors."""
    images = create_images().reshape(N_SENSORS, -1)
    for sensor, length in enumerate(lengths):
        images[sensor, :length] = 20
    return images.reshape(N_SENSORS, N_U_CELLS, N_V_CELLS)


@pytest.mark.parametrize(
    "lengths",
    [
        ([40_000], []),
        ([3], [40_000]),  # the mean of the two is the median
        ([3, 40_000, 5], [501, 499]),
        ([3, 700, 2, 1], [40_000, 600]),
        ([399, 400], [401, 402]),
        ([499, 500], [500, 501]),
        ([1, 2], [40_000]),
    ],
)
def test_means_and_medians_of_huge_clusters_are_exact(tmp_path: Path, lengths: tuple[list[int], list[int]]) -> None:
    """Histograms end at 500 hits and at 8000 ADU, which 400 of these hits have."""
    events = [build_digits(draw_bars(*of_event), event) for event, of_event in enumerate(lengths)]
    sample = count_file(write_events(tmp_path / "d.npz", events, first_event=0), "huge")
    for of_event, half in zip(
        (lengths[0] + lengths[1], *lengths), (sample.all_clusters, *sample.clusters), strict=True
    ):
        assert sorted(half.large_sizes.tolist()) == sorted(length for length in of_event if length >= 500)
        assert sorted(half.large_charges.tolist()) == sorted(20 * length for length in of_event if length >= 400)
    report = build_report((sample,), (), ())
    sizes = lengths[0] + lengths[1]
    found = report.samples[0].clusters
    assert found.clusters == len(sizes)
    assert (found.mean_size, found.median_size) == (fmean(sizes), median(sizes))
    assert (found.mean_charge_adu, found.median_charge_adu) == (20 * fmean(sizes), 20 * median(sizes))
    assert len(report.comparisons) == (1 if lengths[1] else 0)  # half against half, if both have hits
    for each in report.comparisons:
        assert each.clusters is not None
        even, odd = lengths
        assert each.clusters.mean_size_percent == pytest.approx(100 * (fmean(even) / fmean(odd) - 1))
        assert each.clusters.median_charge_percent == pytest.approx(100 * (median(even) / median(odd) - 1))


def test_without_a_reference(ours: Sample) -> None:
    report = build_report((ours,), (), ())
    assert report.primary is None
    assert [each.role for each in report.comparisons] == ["half against half"]
    assert find_text(report, "charge spectrum: W1 (ADU)", "ours: sample") == "-"
    assert find_text(report, "mean occupancy", "ours: sample").endswith(" %")


def test_digits_alone_as_a_reference(ours: Sample, simulation: Sample) -> None:
    report = build_report((ours,), (simulation,), ())
    assert report.primary == "simulation"
    assert find_text(report, "charge spectrum: W1 (ADU)", "ours: sample") == "1.00"
    assert find_text(report, "charge spectrum: W1 (ADU)", "simulation: reference digits") == "-"


def test_the_json_holds_the_numbers(ours: Sample, simulation: Sample) -> None:
    report = build_report((ours,), (simulation,), ())
    content = json.loads(report.to_json())
    assert content["schema"] == 4
    (sample,) = content["samples"]
    assert sample["name"] == "ours"
    assert sample["jobs"][0]["nature"] == "demonstration"
    assert sample["events"] == 4
    assert sample["marginals"]["charge_counts"] == ours.bin_marginals().charge_counts.tolist()
    assert len(sample["marginals"]["sensor_mean_charge"]) == N_SENSORS
    assert {seam["verdict"] for seam in sample["seams"]} <= {"pass", "fail", "too few hits"}
    assert content["comparisons"][0]["scores"]["charge"]["w1"] == pytest.approx(1.0)
    assert content["references"][0]["name"] == "simulation"


def test_what_is_not_known_is_null_in_the_json(tmp_path: Path) -> None:
    digits = build_digits(create_images((0, 10, 10, 9)), 3)
    sample = count_file(write_events(tmp_path / "d.npz", [digits]), "one hit")
    report = build_report((sample,), (), ())
    text = report.to_json()
    assert "NaN" not in text
    content = json.loads(text)["samples"][0]
    assert content["correlation"] is None
    assert content["seams"] == []
    assert content["marginals"]["sensor_mean_charge"][:2] == [9, None]
    assert find_text(report, "largest seam", "one hit: sample") == "-"
    assert [each.kind for each in build_columns(report)] == ["sample"]
