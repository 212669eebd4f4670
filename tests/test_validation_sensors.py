"""Samples compared sensor by sensor: scores, errors, correlations and the picture, known by construction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS
from pxdbg_runtime.sensors import PIXELS_PER_SENSOR
from pxdbg_runtime.validation.correlations import correlate_sensors, measure_correlation
from pxdbg_runtime.validation.figure_style import Style
from pxdbg_runtime.validation.report import build_report
from pxdbg_runtime.validation.sensor_figures import SensorSeries, draw_sensors
from pxdbg_runtime.validation.sensor_scores import score_sensors
from pxdbg_runtime.validation.summary_table import build_columns, build_rows
from tests.validation_samples import build_digits, count_file, create_images, write_events

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pxdbg_runtime.validation.sample import Sample


def draw_hits(rng: np.random.Generator, n_events: int, correlation: float) -> NDArray[np.int64]:
    """Draw hits of forty sensors: normal values of which any two have the correlation."""
    of_event = rng.standard_normal((n_events, 1))
    of_sensor = rng.standard_normal((n_events, N_SENSORS))
    values = np.sqrt(correlation) * of_event + np.sqrt(1 - correlation) * of_sensor
    return np.asarray(np.rint(100_000 + 10_000 * values), dtype=np.int64)


def count_events_of(path: Path, hits: NDArray[np.int64], charges: NDArray[np.int64]) -> Sample:
    """Count events in which each image has so many hits, all of one charge; both have the shape (events, 40)."""
    digits = []
    for event, (of_event, charge) in enumerate(zip(hits, charges, strict=True)):
        images = create_images().reshape(N_SENSORS, -1)
        for sensor, (n_hits, adu) in enumerate(zip(of_event, charge, strict=True)):
            images[sensor, 2 * np.arange(n_hits)] = adu
        digits.append(build_digits(images.reshape(N_SENSORS, N_U_CELLS, N_V_CELLS), event))
    return count_file(write_events(path, digits, first_event=0), path.stem)


def test_deviations_are_relative_to_the_reference() -> None:
    rng = np.random.default_rng(1)
    reference = rng.uniform(0.004, 0.02, N_SENSORS)
    percent = rng.uniform(-10, 10, N_SENSORS)
    percent[17] = -25.0
    scores = score_sensors(reference * (1 + percent / 100), reference)
    assert scores is not None
    assert scores.deviations_percent == pytest.approx(percent.tolist())
    assert scores.mean_percent == pytest.approx(np.abs(percent).mean())
    assert scores.largest_percent == pytest.approx(-25.0)
    assert scores.largest_sensor == "2.1.2"


def test_sensors_without_a_value_are_not_compared() -> None:
    reference = np.full(N_SENSORS, 20.0)
    values = np.full(N_SENSORS, 21.0)
    values[0], reference[1], reference[2] = np.nan, np.nan, 0.0
    values[3] = 0.0
    scores = score_sensors(values, reference)
    assert scores is not None
    assert np.isnan(scores.deviations_percent).nonzero()[0].tolist() == [0, 1, 2]
    assert (scores.largest_percent, scores.largest_sensor) == (-100.0, str(SENSORS[3]))
    assert scores.mean_percent == pytest.approx((100 + 36 * 5) / 37)
    assert score_sensors(values, np.full(N_SENSORS, np.nan)) is None
    assert score_sensors(values, np.zeros(N_SENSORS)) is None


def test_coefficients_are_pearsons() -> None:
    hits = draw_hits(np.random.default_rng(2), 30, 0.3)
    matrix = correlate_sensors(hits)
    assert matrix is not None
    assert matrix == pytest.approx(np.corrcoef(hits.T))
    found = measure_correlation(hits)
    assert found is not None
    assert found.mean == pytest.approx((matrix.sum() - N_SENSORS) / (N_SENSORS * (N_SENSORS - 1)))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_the_error_of_the_mean_correlation_is_its_spread(correlation: float) -> None:
    """Many samples of one correlation scatter by the error that each estimates."""
    rng = np.random.default_rng(3)
    found = [measure_correlation(draw_hits(rng, 120, correlation)) for _sample in range(60)]
    means = np.array([each.mean for each in found if each])
    errors = np.array([each.error for each in found if each])
    assert len(means) == 60
    assert means.mean() == pytest.approx(correlation, abs=4 * means.std() / np.sqrt(60) + 0.003)
    # 60 samples know their spread to a tenth, and the errors scatter by as much.
    assert errors.mean() == pytest.approx(means.std(ddof=1), rel=0.35)


def test_independent_sensors_have_the_error_of_independent_pairs() -> None:
    n_events, n_pairs = 2_000, N_SENSORS * (N_SENSORS - 1) / 2
    found = measure_correlation(draw_hits(np.random.default_rng(4), n_events, 0.0))
    assert found is not None
    assert found.error == pytest.approx(1 / np.sqrt(n_pairs * n_events), rel=0.35)
    assert abs(found.mean) < 4 * found.error


def test_a_correlation_needs_ten_events_that_vary() -> None:
    hits = draw_hits(np.random.default_rng(5), 10, 0.5)
    assert measure_correlation(hits) is not None
    assert measure_correlation(hits[:9]) is None
    assert correlate_sensors(hits[:9]) is None
    constant = np.full_like(hits, 7)
    assert measure_correlation(constant) is None
    assert measure_correlation(hits[:0]) is None
    # Only two sensors vary: their pair is the mean.
    constant[:, [3, 30]] = hits[:, [3, 30]]
    found = measure_correlation(constant)
    assert found is not None
    assert found.mean == pytest.approx(np.corrcoef(hits[:, 3], hits[:, 30])[0, 1])
    matrix = correlate_sensors(constant)
    assert matrix is not None
    assert np.isnan(matrix[0]).all()


def test_errors_of_the_sensors_are_the_spread_of_their_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    hits, charges = rng.integers(1, 300, (5, N_SENSORS)), rng.integers(10, 50, (5, N_SENSORS))
    hits[:, 0] = 0
    hits[1:, 1] = 0
    hits[0, 2] = 0
    errors = count_events_of(tmp_path / "sample.npz", hits, charges).sensor_errors
    assert errors.occupancy == pytest.approx(hits.std(axis=0, ddof=1) / np.sqrt(5) / PIXELS_PER_SENSOR)
    assert errors.charge_adu[3:] == pytest.approx(charges[:, 3:].std(axis=0, ddof=1) / np.sqrt(5))
    assert errors.charge_adu[2] == pytest.approx(charges[1:, 2].std(ddof=1) / 2)
    assert np.isnan(errors.charge_adu[:2]).all()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, Sample]:
    """Count twelve events with 2 % fewer hits than others, 10 % on 1.3.2, and with 5 % more charge on 2.12.2."""
    folder = tmp_path_factory.mktemp("pair")
    rng = np.random.default_rng(7)
    hits = 100 * rng.integers(10, 30, (12, N_SENSORS))
    charges = np.full_like(hits, 40)
    fewer, other = hits * 98 // 100, charges.copy()
    fewer[:, 5] = hits[:, 5] * 90 // 100
    other[:, 39] = 42
    return (
        count_events_of(folder / "ours.npz", fewer, other),
        count_events_of(folder / "reference.npz", hits, charges),
    )


@pytest.mark.slow
def test_the_rows_of_the_sensors(pair: tuple[Sample, Sample]) -> None:
    ours, reference = pair
    report = build_report((ours,), (reference,), ())
    column = [each.name for each in build_columns(report)].index("ours")
    rows = {row.label: row.cells[column].text for row in build_rows(report)}
    assert rows["mean over sensors of the relative deviation of occupancy"] == "2.2 %"  # (39 x 2 + 10) / 40
    assert rows["largest deviation of a sensor's occupancy"] == "-10.0 %, 1.3.2"
    assert rows["mean over sensors of the deviation of the mean charge"] == "0.1 %"  # 5 / 40
    assert rows["largest deviation of a sensor's mean charge"] == "+5.0 %, 2.12.2"
    correlation = measure_correlation(ours.hits)
    assert correlation is not None
    assert rows["correlation of sensors, mean"] == f"{correlation.mean:.3f} ± {correlation.error:.3f}"


def read_error_bars(axes: Axes) -> NDArray[np.float64]:
    """Read the half lengths of the error bars of the last points."""
    _points, _caps, (bars,) = axes.containers[-1]
    segments = np.array(bars.get_segments())
    return np.asarray(segments[:, 1, 1] - segments[:, 0, 1]) / 2


def test_the_errors_of_the_ratio_are_its_spread() -> None:
    """Beside a reference of digits, which has errors too, and beside published values, which have none."""
    rng = np.random.default_rng(9)
    reference, ours = rng.uniform(0.5, 1.5, (2, N_SENSORS))
    reference_errors, errors = rng.uniform(0.005, 0.02, (2, N_SENSORS))
    drawn = rng.normal([ours, reference], [errors, reference_errors], (20_000, 2, N_SENSORS))
    spread = (drawn[:, 0] / drawn[:, 1]).std(axis=0)
    for its_errors, expected in ((reference_errors, spread), (None, errors / reference)):
        series = [
            SensorSeries("reference", reference, its_errors, Style(color="black")),
            SensorSeries("ours", ours, errors, Style(color="blue")),
        ]
        above, below = draw_sensors("occupancy (%)", series).axes
        assert read_error_bars(above) == pytest.approx(errors)
        assert read_error_bars(below) == pytest.approx(expected, rel=0.03)


def test_the_picture_of_the_sensors() -> None:
    rng = np.random.default_rng(8)
    reference, ours, published = rng.uniform(0.5, 1.5, (3, N_SENSORS))
    errors = np.full(N_SENSORS, 0.1)
    errors[4] = ours[4] = np.nan
    reference[6] = 0.0
    figure = draw_sensors(
        "occupancy (%)",
        [
            SensorSeries("geant4", reference, None, Style(color="black")),
            SensorSeries("published", published, None, Style(color="red")),
            SensorSeries("ours", ours, errors, Style(color="blue")),
        ],
    )
    figure.canvas.draw()
    above, below = figure.axes
    assert [text.get_text() for text in below.get_xticklabels()] == [str(sensor) for sensor in SENSORS]
    assert [text.get_text() for text in above.texts] == ["layer 1", "layer 2"]
    assert (above.get_ylabel(), below.get_ylabel()) == ("occupancy (%)", "ratio")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["geant4", "published", "ours"]
    steps = np.diff(below.get_xticks())
    assert steps[15] > 2 * np.delete(steps, 15).max()  # between 1.8.2 and 2.1.1
    divisor = np.where(reference > 0, reference, np.nan)
    for axes, values in ((above, [published, ours]), (below, [published / divisor, ours / divisor])):
        for container, expected in zip(axes.containers, values, strict=True):
            points = container[0].get_xydata()
            assert np.abs(points[:, 0] - below.get_xticks()).max() < 0.5
            drawn = np.isfinite(expected)
            assert points[drawn, 1] == pytest.approx(expected[drawn])
            assert np.isnan(points[~drawn, 1]).all()
    lines = above.collections[0].get_paths()
    assert [line.vertices[0][1] for line in lines] == pytest.approx(reference.tolist())  # type: ignore[index]
