"""Files of published marginals: reading, errors, and the published scores."""

from __future__ import annotations

import functools
import operator
import os
import re
from pathlib import Path
from typing import Any, Final

import pytest

from pxdbg_runtime.errors import MarginalsError
from pxdbg_runtime.validation.marginals import PublicMarginals, read_marginals, score_marginals
from tests.validation_samples import build_marginals_content, count_empty_pixels, write_marginals

PUBLIC: Final = Path(
    os.environ.get("PXDBG_MARGINALS", Path(__file__).parents[2] / "shared" / "reference" / "pxd_marginals.json")
)


@pytest.fixture(scope="module")
def public() -> PublicMarginals:
    if not PUBLIC.is_file():
        pytest.skip("the published marginals are not here: name them in PXDBG_MARGINALS")
    return read_marginals(PUBLIC)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ieagan", (2.80, 0.075, 0.093, 0.203, -10.2, 11.7, 11.0)),
        ("pegan", (4.75, 0.148, 0.208, 0.375, -23.1, 24.6, 20.5)),
    ],
)
def test_the_published_generators_score_as_they_did(
    public: PublicMarginals, name: str, expected: tuple[float, ...]
) -> None:
    (generator,) = (each for each in public.published if each.name == name)
    scores = score_marginals(generator, public.reference)
    assert scores.charge is not None
    assert scores.occupancy is not None
    assert scores.sensor_occupancy is not None
    assert scores.sensor_charge is not None
    w1_adu, ks_charge, w1_points, ks_occupancy, total_percent, sensors_percent, sensor_charge_percent = expected
    assert scores.charge.w1 == pytest.approx(w1_adu, abs=0.005)
    assert scores.charge.ks == pytest.approx(ks_charge, abs=0.0006)
    assert scores.occupancy.w1 == pytest.approx(w1_points, abs=0.0005)
    assert scores.occupancy.ks == pytest.approx(ks_occupancy, abs=0.0005)
    assert scores.total_occupancy_percent == pytest.approx(total_percent, abs=0.05)
    assert scores.sensor_occupancy.mean_percent == pytest.approx(sensors_percent, abs=0.05)
    assert scores.sensor_charge.mean_percent == pytest.approx(sensor_charge_percent, abs=0.05)


def test_the_simulation_is_at_no_distance_from_itself(public: PublicMarginals) -> None:
    scores = score_marginals(public.reference, public.reference)
    assert scores.charge is not None
    assert (scores.charge.w1, scores.charge.ks, scores.total_occupancy_percent) == (0,) * 3
    for of_sensors in (scores.sensor_occupancy, scores.sensor_charge):
        assert of_sensors is not None
        assert set(of_sensors.deviations_percent) == {0.0}
    assert public.reference.mean_occupancy == pytest.approx(0.0090, abs=0.0001)
    assert public.reference.average_layer(1).mean_occupancy == pytest.approx(0.0149, abs=0.0001)
    assert public.reference.average_layer(2).mean_occupancy == pytest.approx(0.0051, abs=0.0001)


def test_a_file_is_read(tmp_path: Path) -> None:
    read = read_marginals(write_marginals(tmp_path / "m.json", build_marginals_content("one", "two")))
    assert read.source == "Made for a test: <nobody> & nothing."
    assert read.reference.name == "geant4"
    assert [each.name for each in read.published] == ["one", "two"]
    assert read.reference.charge_counts[:2].tolist() == [100000, 95123]
    assert (len(read.reference.charge_counts), read.reference.min_charge) == (249, 7)
    assert read.reference.occupancy_counts.sum() == 1000
    assert read.reference.occupancy_overflow == 3


def test_scores_by_hand(tmp_path: Path) -> None:
    content: Any = build_marginals_content("one")
    for name, bin_number in (("geant4", 10), ("one", 13)):
        sample = content["samples"][name]
        sample["charge_counts"] = [5 * int(number == bin_number) for number in range(249)]
        sample["occupancy_counts"] = [7 * int(number == 2 * bin_number) for number in range(200)]
    content["samples"]["one"]["sensor_mean_occupancy"] = [0.0099] * 40
    content["samples"]["one"]["sensor_mean_charge"] = [25.0] * 20 + [22.0] * 20
    content["samples"]["one"]["occupancy_overflow"] = 100_000  # left out of the histogram
    for sample in content["samples"].values():
        count_empty_pixels(sample)
    read = read_marginals(write_marginals(tmp_path / "m.json", content))
    scores = score_marginals(read.published[0], read.reference)
    assert scores.charge is not None
    assert scores.occupancy is not None
    assert (scores.charge.w1, scores.charge.ks) == (3.0, 1.0)
    assert scores.occupancy.w1 == pytest.approx(0.06)
    assert scores.total_occupancy_percent == pytest.approx(10)
    assert scores.sensor_occupancy is not None
    assert scores.sensor_charge is not None
    assert scores.sensor_occupancy.mean_percent == pytest.approx(10)
    assert scores.sensor_charge.mean_percent == pytest.approx(0.5 * 100 * 3 / 22)
    assert scores.sensor_charge.largest_sensor == "1.1.1"
    assert read.reference.mean_hit_charge == 17
    layer = read.published[0].average_layer(1)
    assert (layer.mean_occupancy, layer.mean_charge_adu) == pytest.approx((0.0099, 25.0))


def test_the_mean_charge_of_very_many_hits(tmp_path: Path) -> None:
    content: Any = build_marginals_content()
    sample = content["samples"]["geant4"]
    sample["charge_counts"] = [2**55 - 1] * 249
    sample["sensor_mean_occupancy"] = [1.0] * 40
    count_empty_pixels(sample)
    read = read_marginals(write_marginals(tmp_path / "m.json", content))
    assert read.reference.mean_hit_charge == pytest.approx(131)  # of 7 to 255 ADU


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("samples", None, "the field samples is missing"),
        ("source", None, "the field source is missing"),
        ("source", 7, "source must be text"),
        ("source", "", "source must be text that is not empty, but is"),
        ("samples.\ud800", {}, "must be text that is not empty"),
        ("more", 1, "the field more is unknown"),
        ("samples", [], "samples must be "),
        ("samples.geant4", None, "the field samples.geant4 is missing"),
        ("samples.one", 3, "in samples.one, it must be "),
        ("samples.geant4.charge_counts", None, "in samples.geant4, the field charge_counts is missing"),
        ("samples.one.more", 3, "in samples.one, the field more is unknown"),
        ("samples.geant4.charge_counts", [1], "charge_counts must be a list of length >= 249, but is [1]"),
        ("samples.geant4.charge_counts", [1] * 250, "charge_counts must be a list of length <= 249, but is [1, 1"),
        ("samples.geant4.charge_counts", [0] * 249, "samples.geant4.charge_counts must not be all zero"),
        ("samples.geant4.charge_counts", [-1] * 249, "charge_counts[0] must be an integer >= 0, but is -1"),
        ("samples.geant4.charge_counts", [0.5] * 249, "charge_counts[0] must be an integer, but is 0.5"),
        ("samples.geant4.charge_counts", [2**62] * 249, "must be an integer <= 36028797018963967, but is 4611"),
        ("samples.one.occupancy_counts", [0] * 200, "samples.one.occupancy_counts must not be all zero"),
        ("samples.geant4.occupancy_overflow", -1, "occupancy_overflow must be an integer >= 0, but is -1"),
        ("samples.geant4.empty_pixels", 0.5, "in samples.geant4, empty_pixels must be an integer, but is 0.5"),
        (
            "samples.one.empty_pixels",
            0,
            "empty_pixels are those of an occupancy of 100 %, but the mean of sensor_mean_o",
        ),
        (
            "samples.geant4.sensor_mean_occupancy",
            [0.0092] * 40,
            "are those of an occupancy of 0.9 %, but the mean of sensor_mean_occupancy is 0.92 %.",
        ),
        ("samples.geant4.sensor_mean_occupancy", [1.5] * 40, "[0] must be a number <= 1.0, but is 1.5"),
        ("samples.geant4.sensor_mean_occupancy", [0.0] * 40, "sensor_mean_occupancy must not be all zero"),
        ("samples.geant4.sensor_mean_charge", [float("nan")] * 40, "NaN is not a number"),
        ("samples.geant4.sensor_mean_charge", ["7"] * 40, 'sensor_mean_charge[0] must be a number, but is "7"'),
    ],
)
def test_an_error_names_the_field(tmp_path: Path, path: str, value: object, expected: str) -> None:
    content: Any = build_marginals_content("one")
    *parents, last = path.split(".")
    parent = functools.reduce(operator.getitem, parents, content)
    if value is None:
        del parent[last]
    else:
        parent[last] = value
    file = write_marginals(tmp_path / "m.json", content)
    with pytest.raises(MarginalsError, match=re.escape(expected)) as info:
        read_marginals(file)
    assert info.value.path == file
    assert str(info.value).startswith(f"{file} is not a JSON file of marginals: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "it is not JSON"),
        (b"[1, 2]", "it must be "),
        (b"\xff\xfe{}", "it is not text in UTF-8"),
        (b"{} {}", "it is not JSON"),
    ],
)
def test_a_text_that_is_not_json(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(MarginalsError, match=expected):
        read_marginals(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with (tmp_path / "long.json").open("wb") as file:
        file.truncate(300_000_000)  # a hole, which takes no disk
    reasons = {
        "gone": "cannot be read: No such file or directory.",
        "folder": "cannot be read: Is a directory.",
        "long": "has 300,000,000 bytes, expected a JSON file of marginals of at",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        reasons["pipe"] = "cannot be read: it is a pipe, a device or a socket"
    for name, reason in reasons.items():
        with pytest.raises(MarginalsError, match=re.escape(f"{name}.json {reason}")):
            read_marginals(tmp_path / f"{name}.json")
