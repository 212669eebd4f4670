"""Features of images, the classifier test, and the comparison of neighbours."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.ndimage import find_objects, label
from sklearn.metrics import roc_auc_score

from pxdbg_runtime import N_SENSORS
from pxdbg_runtime.sensors import PIXELS_PER_SENSOR
from pxdbg_runtime.validation import figures
from pxdbg_runtime.validation.classifier import classify_images, measure_roc_area
from pxdbg_runtime.validation.classifier_figure import draw_importances
from pxdbg_runtime.validation.features import FEATURES, ImageFeatures, standardise_by_sensor
from pxdbg_runtime.validation.neighbours import compare_neighbours, score_neighbours
from pxdbg_runtime.validation.page import render_page
from pxdbg_runtime.validation.report import Report, build_report
from pxdbg_runtime.validation.summary_table import build_rows
from tests.test_command_line import invoke
from tests.validation_samples import build_digits, count_file, create_images, draw_digits, write_events

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.classifier_figure import ClassifiedSample
    from pxdbg_runtime.validation.sample import Sample

N_EVENTS = 20


def count_drawn(folder: Path, name: str, seed: int, *, pair_share: float = 0.3) -> Sample:
    rng = np.random.default_rng(seed)
    events = [draw_digits(rng, event, hits=100, charge_adu=15.0, pair_share=pair_share) for event in range(N_EVENTS)]
    return count_file(write_events(folder / f"{name}.npz", events, first_event=0), name)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    """Two samples of the same source, and one with more pairs of pixels."""
    folder = tmp_path_factory.mktemp("samples")
    return {
        "simulation": count_drawn(folder, "simulation", 1),
        "same": count_drawn(folder, "same", 2),
        "shifted": count_drawn(folder, "shifted", 3, pair_share=0.5),
    }


@pytest.fixture(scope="module")
def report(samples: dict[str, Sample]) -> Report:
    return build_report((samples["same"], samples["shifted"]), (samples["simulation"],), ())


def compute_expected_features(image: NDArray[np.uint8]) -> list[float]:
    """Compute the features of one image in plain NumPy and SciPy."""
    u_cell, v_cell = np.nonzero(image)
    charges = image[u_cell, v_cell].astype(float)
    labels, n_clusters = label(image > 0, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())[1:]
    sums = np.array([image[labels == number + 1].sum() for number in range(n_clusters)])
    boxes = find_objects(labels)
    tiles = np.add.reduceat(np.add.reduceat(image > 0, range(0, 250, 32), axis=0), range(0, 768, 32), axis=1)
    return [
        100 * len(charges) / PIXELS_PER_SENSOR,
        charges.mean(),
        charges.std(),
        *np.quantile(charges, [0.25, 0.5, 0.75, 0.95], method="inverted_cdf"),
        n_clusters,
        sizes.mean(),
        sizes.std(),
        sizes.max(),
        (sizes == 1).mean(),
        (sizes == 2).mean(),
        (sizes >= 6).mean(),
        sums.mean(),
        sums.std(),
        sums[sizes == 1].mean(),
        np.mean([box[0].stop - box[0].start for box in boxes]),
        np.mean([box[1].stop - box[1].start for box in boxes]),
        u_cell.mean(),
        u_cell.std(),
        v_cell.mean(),
        v_cell.std(),
        tiles.var() / tiles.mean(),
    ]


def test_the_features_are_those_of_plain_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = create_images()
    for sensor in (0, 7, N_SENSORS - 1):
        dense = rng.random((40, 60)) < 0.2
        images[sensor, 200:240, 700:760][dense] = rng.integers(7, 256, dense.sum())
        images[sensor, rng.integers(0, 250, 50), rng.integers(0, 768, 50)] = 9
    sample = count_file(write_events(tmp_path / "d.npz", [build_digits(images, 3)]), "d")
    (features,) = sample.features.values
    assert features.shape == (N_SENSORS, len(FEATURES))
    for sensor in (0, 7, N_SENSORS - 1):
        np.testing.assert_allclose(features[sensor], compute_expected_features(images[sensor]), rtol=1e-5)
    counts = [name in {"occupancy (%)", "clusters"} for name in FEATURES]
    np.testing.assert_array_equal(np.isnan(features[1]), ~np.array(counts))
    assert not features[1][counts].any()


def test_features_are_relative_to_the_sensor_and_to_both_samples() -> None:
    rng = np.random.default_rng(1)
    offsets = 100 * np.arange(N_SENSORS)[:, None]
    values = (offsets + rng.normal(size=(2, 30, N_SENSORS, 3))).astype(np.float32)
    values[..., 2] = 0.3
    values[0, 0, 0, 0] = np.nan
    standardised = np.concatenate(standardise_by_sensor(*values))
    assert np.isnan(standardised).sum() == 1
    np.testing.assert_allclose(np.nanmean(standardised, axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(np.nanstd(standardised[..., :2], axis=0), 1, rtol=1e-3)
    assert not standardised[..., 2].any()


@pytest.mark.slow
def test_two_samples_of_one_source_cannot_be_told_apart(report: Report) -> None:
    found = report.find_comparison("same", "sample", "simulation")
    assert found is not None
    assert found.classification is not None
    assert found.neighbours is not None
    roc = found.classification.roc
    assert roc.error < 0.03
    assert abs(roc.auc - 0.5) < 3 * roc.error
    assert found.neighbours.images == N_EVENTS * N_SENSORS
    assert found.neighbours.density == pytest.approx(1, abs=0.15)
    assert found.neighbours.coverage == pytest.approx(found.neighbours.expected_coverage, abs=0.03)
    assert min(found.neighbours.precision, found.neighbours.recall) > 0.85


def test_a_shifted_sample_is_recognised_and_the_reason_is_named(report: Report) -> None:
    found = report.find_comparison("shifted", "sample", "simulation")
    assert found is not None
    assert found.classification is not None
    assert found.neighbours is not None
    assert found.classification.roc.auc > 0.99
    assert found.classification.roc.error < 0.01
    # The samples differ in the share of pairs, which several features show.
    of_pairs = {
        "share of pairs",
        "share of single pixels",
        "mean cluster size (hits)",
        "mean cluster extent in v (cells)",
    }
    of_pairs |= {"spread of cluster sizes (hits)"}
    assert found.classification.importances[0].name in of_pairs
    assert found.classification.best_alone.name in of_pairs
    alone = {each.name: each.auc_alone for each in found.classification.importances}
    assert alone["share of pairs"] > 0.95
    assert alone["mean u of hits (cells)"] < 0.6
    assert found.neighbours.coverage < 0.6
    assert found.neighbours.density < 0.5
    halves = report.find_comparison("shifted", "half against half", "shifted")
    assert halves is not None
    assert halves.classification is not None
    assert abs(halves.classification.roc.auc - 0.5) < 3 * halves.classification.roc.error


@pytest.mark.slow
def test_a_classification_can_be_reproduced(samples: dict[str, Sample], report: Report) -> None:
    found = report.find_comparison("shifted", "sample", "simulation")
    assert found is not None
    assert classify_images(samples["shifted"].features, samples["simulation"].features) == found.classification


@pytest.mark.slow
def test_the_page_and_the_json_have_the_rows(
    samples: dict[str, Sample], report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the pictures, only that of the classifier test is encoded, which takes time: the page of a command has all."""
    rows = {row.label.partition(":")[0]: [cell.text for cell in row.cells] for row in build_rows(report)}
    same, shifted, *halves, simulation = rows["classifier test against reference digits"]
    assert same.startswith("0.")
    assert shifted.startswith(("0.99", "1.00"))
    assert len(halves) == 2
    assert simulation == "-"
    drawn: list[Figure] = []
    encode = figures._encode_png

    def draw_and_note(classified: list[ClassifiedSample]) -> Figure:
        drawn.append(draw_importances(classified))
        return drawn[0]

    monkeypatch.setattr(figures, "draw_importances", draw_and_note)
    monkeypatch.setattr(figures, "_encode_png", lambda figure: encode(figure) if figure in drawn else "")
    page = render_page(report, (samples["same"], samples["shifted"]), (samples["simulation"],))
    assert page.count("base64,iVBOR") == 1
    assert 'alt="Classifier test"' in page
    assert "Images against images" in page
    content = json.loads(report.to_json())["comparisons"][0]
    assert 0.4 < content["classification"]["roc"]["auc"] < 0.6
    assert len(content["classification"]["importances"]) == len(FEATURES) + 1
    assert content["neighbours"]["expected_coverage"] == pytest.approx(1 - 2**-5, abs=0.002)


def test_without_a_reference_of_digits_there_are_no_such_rows(samples: dict[str, Sample]) -> None:
    report = build_report((samples["same"],), (), ())
    assert [each.classification for each in report.comparisons] == [None]
    assert [each.neighbours for each in report.comparisons] == [None]
    assert not [row for row in build_rows(report) if row.label.startswith(("classifier", "neighbours"))]


def test_few_events_have_neighbours_and_no_classifier(samples: dict[str, Sample]) -> None:
    numbers, values = samples["same"].features
    few = ImageFeatures(numbers[:9], values[:9])
    assert classify_images(few, samples["simulation"].features) is None
    neighbours = compare_neighbours(few, samples["simulation"].features)
    assert neighbours is not None
    assert neighbours.images == 9 * N_SENSORS


def test_events_of_one_number_are_in_one_fold(samples: dict[str, Sample]) -> None:
    """The same events on both sides: a classifier that had seen the twin of an image would be wrong about it."""
    features = samples["same"].features
    found = classify_images(features, features)
    assert found is not None
    assert found.roc.auc == pytest.approx(0.5, abs=1e-9)


def test_the_roc_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    scores = rng.integers(0, 9, 300).astype(float)
    is_ours = rng.random(300) < 0.3
    scores[is_ours] += 1
    found = measure_roc_area(scores, is_ours, np.arange(300))
    assert found.auc == pytest.approx(roc_auc_score(is_ours, scores))


@pytest.mark.parametrize("share_of_event", [0.0, 0.7])
def test_the_error_is_the_spread_of_repeated_experiments(share_of_event: float) -> None:
    """Without correlation of the images of an event, and with much of it."""
    rng = np.random.default_rng(6)
    is_ours, events = np.repeat([True, False], 600), np.arange(1200) // 20
    found = []
    for _ in range(300):
        scores = np.sqrt(share_of_event) * rng.normal(size=60)[events]
        scores += np.sqrt(1 - share_of_event) * rng.normal(size=1200) + 0.5 * is_ours
        found.append(measure_roc_area(scores, is_ours, events))
    spread = np.std([each.auc for each in found])
    assert np.sqrt(np.mean([each.error**2 for each in found])) == pytest.approx(spread, rel=0.15)


def test_the_neighbours_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(7)
    ours, theirs = rng.normal(size=(70, 3)).astype(np.float32), rng.normal(0.8, 1.2, (50, 3)).astype(np.float32)
    ours[0] = theirs[0]
    between = np.linalg.norm(theirs[:, None].astype(float) - ours, axis=2)
    (our_radii, their_radii) = (
        np.sort(np.linalg.norm(points[:, None].astype(float) - points, axis=2), axis=1)[:, 5]
        for points in (ours, theirs)
    )
    is_inside = between <= their_radii[:, None]
    found = score_neighbours(ours, theirs)
    assert found.precision == pytest.approx(is_inside.any(axis=0).mean())
    assert found.recall == pytest.approx((between <= our_radii).any(axis=1).mean())
    assert found.density == pytest.approx(is_inside.sum() / (5 * 70))
    assert found.coverage == pytest.approx(is_inside.any(axis=1).mean())


def test_the_expected_coverage_is_that_of_repeated_experiments() -> None:
    rng = np.random.default_rng(8)
    found = [score_neighbours(*rng.normal(size=(2, 60, 2)).astype(np.float32)) for _ in range(60)]
    assert np.mean([each.coverage for each in found]) == pytest.approx(found[0].expected_coverage, abs=0.01)
    assert np.mean([each.density for each in found]) == pytest.approx(1, abs=0.05)


def test_images_without_a_hit_are_left_out_of_the_neighbours() -> None:
    """They are equal: with them the density of two samples of one distribution is 39."""
    rng = np.random.default_rng(9)
    values = rng.normal(5, 1, (2, 60, N_SENSORS, len(FEATURES))).astype(np.float32)
    is_empty = rng.random((2, 60, N_SENSORS)) < 0.3
    values[is_empty] = np.nan
    values[is_empty, FEATURES.index("occupancy (%)")] = values[is_empty, FEATURES.index("clusters")] = 0
    ours, theirs = (ImageFeatures(np.arange(60), each) for each in values)
    found = compare_neighbours(ours, theirs)
    assert found is not None
    assert found.images == (~is_empty).sum(axis=(1, 2)).min()
    assert found.density == pytest.approx(1, abs=0.1)
    assert found.coverage == pytest.approx(found.expected_coverage, abs=0.02)


@pytest.mark.parametrize(("n_images", "is_compared"), [(0, False), (5, False), (6, True)])
def test_neighbours_need_six_images_with_a_hit(samples: dict[str, Sample], n_images: int, is_compared: bool) -> None:
    numbers, values = samples["same"].features
    few = np.full((1, N_SENSORS, len(FEATURES)), np.nan, dtype=np.float32)
    few[:, n_images:, FEATURES.index("occupancy (%)")] = 0
    few[:, :n_images] = values[:1, :n_images]
    for pair in ((few, values), (values, few)):
        found = compare_neighbours(*(ImageFeatures(numbers[: len(each)], each) for each in pair))
        assert (found is not None) == is_compared


def test_without_scikit_learn_a_note_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxdbg_runtime.validation.page.draw_pictures", lambda *_arguments: ())
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.chdir(tmp_path)
    digits = [draw_digits(np.random.default_rng(1), 3, hits=20, charge_adu=15.0, pair_share=0.3)]
    write_events(tmp_path / "ours.npz", digits)
    write_events(tmp_path / "simulation.npz", digits)
    result = invoke("validate", "ours.npz", "--reference", "simulation.npz", "--report", "out.html")
    assert result.exit_code == 0, result.output
    assert "scikit-learn is not installed, so the report has no classifier test" in result.stderr
    assert "pip install 'pxdbg-runtime[validate]'" in result.stderr
    (comparison, *_others) = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["comparisons"]
    assert comparison["classification"] is None
    assert comparison["neighbours"] is None
