"""``pxdbg show`` sensor by sensor: alone, beside digits and beside published marginals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec import structs

from pxdbg_runtime import N_SENSORS, SENSORS, Digits
from pxdbg_runtime.sensors import PIXELS_PER_SENSOR, READOUT_THRESHOLD_ADU
from tests.digit_files import ANY_SUFFIX, PROVENANCE, random_digits, write
from tests.graphs import LATENT_CARD, latent_model, write_graph
from tests.test_command_line import invoke, require_failure
from tests.test_command_line_inspection import row_of
from tests.validation_samples import build_marginals_content, write_marginals

if TYPE_CHECKING:
    from pathlib import Path

N_EVENTS = PROVENANCE.events


@pytest.fixture(scope="module")
def digits() -> Digits:
    """One event of the four of a file, so dense that no sensor is like another."""
    return random_digits(np.random.default_rng(9), 300_000, 5)


def select_charges(digits: Digits, min_charge: int) -> Digits:
    return digits.select_rows(digits.charge >= min_charge)


def average_sensor(digits: Digits, index: int) -> tuple[float, float]:
    """Average with plain NumPy: occupancy in percent over the four events, and charge of the hits in ADU."""
    charges = digits.charge[digits.sensor_id == SENSORS[index].vxd_id]
    return 100 * len(charges) / N_EVENTS / PIXELS_PER_SENSOR, float(charges.astype(float).mean())


def test_each_sensor_is_in_the_row_of_its_ladder(tmp_path: Path, digits: Digits) -> None:
    result = invoke("show", write(tmp_path / "bg.npz", [digits]))
    assert (result.exit_code, result.stderr) == (0, "")
    counted = select_charges(digits, READOUT_THRESHOLD_ADU)
    for ladder in range(1, 13):
        row = row_of(result.stdout, str(ladder))
        of_ladder = [sensor for sensor in SENSORS if sensor.ladder == ladder]
        expected = ["{:.2f} %, {:.1f}".format(*average_sensor(counted, sensor.index)) for sensor in of_ladder]
        assert row[1:] == [*([""] * (4 - len(expected))), *expected]


def test_only_generated_sensors_are_listed(tmp_path: Path, digits: Digits) -> None:
    sensors = (SENSORS[2], SENSORS[20], SENSORS[21])
    some = digits.select_rows(np.isin(digits.sensor_id, [sensor.vxd_id for sensor in sensors]))
    provenance = structs.replace(PROVENANCE, sensors=tuple(map(str, sensors)))
    path = write(tmp_path / "bg.npz", [some], provenance)
    stdout = invoke("show", path).stdout
    counted = select_charges(digits, READOUT_THRESHOLD_ADU)
    cells = ["{:.2f} %, {:.1f}".format(*average_sensor(counted, sensor.index)) for sensor in sensors]
    assert row_of(stdout, "2") == ["2", cells[0], "", ""]
    assert row_of(stdout, "3") == ["3", "", *cells[1:]]
    marginals = write_marginals(tmp_path / "m.json", build_marginals_content())
    compared = invoke("show", path, "--reference", marginals).stdout
    assert row_of(compared, "1.2.1")[1] == f"{average_sensor(select_charges(digits, 7), 2)[0]:.3f} %"
    assert "1.1.1" not in compared.replace("sensors 1.2.1", "")


def test_beside_digits_of_another_threshold(tmp_path: Path, digits: Digits) -> None:
    """Both are cut at the larger threshold."""
    other = random_digits(np.random.default_rng(10), 200_000, 5)
    path = write(tmp_path / "bg.npz", [digits])
    provenance = structs.replace(PROVENANCE, min_charge=30)
    reference = write(tmp_path / "other.parquet", [select_charges(other, 30)], provenance)
    stdout = invoke("show", path, "--reference", reference).stdout
    assert "mean charges in ADU, hits of 30 ADU or more" in stdout
    assert row_of(stdout, "sensor") == ["sensor", "occupancy", "other", "deviation", "charge", "other", "deviation"]
    means = [
        [average_sensor(select_charges(each, 30), index) for index in range(N_SENSORS)] for each in (digits, other)
    ]
    ours, theirs = np.array(means)
    percent = 100 * (ours / theirs - 1)
    for sensor in SENSORS:
        (occupancy, charge), (other_occupancy, other_charge) = ours[sensor.index], theirs[sensor.index]
        assert row_of(stdout, str(sensor))[1:] == [
            f"{occupancy:.3f} %",
            f"{other_occupancy:.3f} %",
            f"{percent[sensor.index, 0]:+.1f} %",
            f"{charge:.1f}",
            f"{other_charge:.1f}",
            f"{percent[sensor.index, 1]:+.1f} %",
        ]
    mean, largest = np.abs(percent).mean(axis=0), percent[np.abs(percent).argmax(axis=0), [0, 1]]
    assert row_of(stdout, "mean") == ["mean", "", "", f"{mean[0]:.1f} %", "", "", f"{mean[1]:.1f} %"]
    assert row_of(stdout, "largest") == ["largest", "", "", f"{largest[0]:+.1f} %", "", "", f"{largest[1]:+.1f} %"]


@pytest.mark.parametrize(
    ("reference", "counted"),
    [(None, "the tables"), ("m.json", "the table of the layers"), ("bg.npz", "the table of the layers")],
)
def test_the_cut_is_said_of_the_tables_that_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Digits, reference: str | None, counted: str
) -> None:
    """The table of the sensors beside digits has their threshold, 1 ADU here."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bg.npz", [digits])
    write_marginals(tmp_path / "m.json", build_marginals_content())
    stdout = invoke("show", "bg.npz", *([] if reference is None else ["--reference", reference])).stdout
    assert f"counted in {counted}: digits of 7 ADU or more, as in Geant4" in stdout
    assert ("hits of 1 ADU or more" in stdout) == (reference == "bg.npz")


def test_beside_published_marginals(tmp_path: Path, digits: Digits) -> None:
    """They are cut at 7 ADU."""
    content: Any = build_marginals_content("one")
    content["samples"]["geant4"]["sensor_mean_occupancy"][39] = 0.01
    content["samples"]["geant4"]["sensor_mean_charge"][39] = 100.0
    marginals = write_marginals(tmp_path / "m.json", content)
    stdout = invoke("show", write(tmp_path / "bg.npz", [digits]), "--reference", marginals).stdout
    occupancy, charge = average_sensor(select_charges(digits, 7), 39)
    assert row_of(stdout, "2.12.2")[1:] == [
        f"{occupancy:.3f} %",
        "1.000 %",
        f"{100 * (occupancy - 1):+.1f} %",
        f"{charge:.1f}",
        "100.0",
        f"{charge - 100:+.1f} %",
    ]
    assert row_of(stdout, "1.1.1")[2] == "0.900 %"


def test_no_digits_beside_a_reference(tmp_path: Path) -> None:
    marginals = write_marginals(tmp_path / "m.json", build_marginals_content())
    result = invoke("show", write(tmp_path / "bg.npz", []), "--reference", marginals)
    assert result.exit_code == 0, result.output
    assert row_of(result.stdout, "1.1.1")[1:4] == ["0.000 %", "0.900 %", "-100.0 %"]
    assert row_of(result.stdout, "mean")[3:] == ["100.0 %", "", "", ""]


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        ("bg.npz --reference gone.json", 1, r"gone\.json cannot be read: No such file"),
        ("bg.npz --reference gone.npz", 1, r"gone\.npz cannot be read: No such file"),
        ("bg.npz --reference bg.csv", 2, f"must end in {ANY_SUFFIX}"),
        (
            "high.npz --reference m.json",
            2,
            "threshold of 9 ADU, but published marginals are cut at 7 ADU: compare",
        ),
        ("graph.onnx --reference m.json", 2, r"--reference is compared with digit files, .* but graph\.onnx is none"),
    ],
)
def test_references_that_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, exit_code: int, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "bg.npz", [])
    write(tmp_path / "high.npz", [], structs.replace(PROVENANCE, min_charge=9))
    write_marginals(tmp_path / "m.json", build_marginals_content())
    write_graph(tmp_path / "graph.onnx", latent_model(), LATENT_CARD)
    require_failure(invoke("show", *options.split()), exit_code, expected)
