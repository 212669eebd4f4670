"""Files of some sensors of the events: ``pxdbg generate --sensors`` and ``--layer``, and what reads such files."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from pxdbg_runtime import SENSORS, Digits, Generator
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats import describe_generation, merge_files, open_events, read_digits
from pxdbg_runtime.sensors import READOUT_THRESHOLD_ADU
from tests.digit_files import (
    METADATA,
    PROVENANCE,
    each_suffix,
    list_columns,
    names_in,
    random_digits,
    read_provenance,
    summarise,
    write,
    write_plainly,
)
from tests.test_command_line import invoke, require_failure, words
from tests.test_command_line_inspection import row_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pxdbg_runtime.formats import Provenance
    from pxdbg_runtime.model.graph_file import GraphFile
    from pxdbg_runtime.sensors import Sensor

LAYER_1, LAYER_2 = (tuple(sensor for sensor in SENSORS if sensor.layer == layer) for layer in (1, 2))


def select_digits(digits: Digits, sensors: Sequence[Sensor]) -> Digits:
    return digits.select_rows(np.isin(digits.sensor_id, [sensor.vxd_id for sensor in sensors]))


def describe(sensors: Sequence[Sensor]) -> Provenance:
    return replace(PROVENANCE, sensors=tuple(map(str, sensors)))


def write_sensors(path: Path, sensors: Sequence[Sensor], n_hits: int = 4000) -> Digits:
    """Write the events 3 to 6 of some sensors, and return their digits."""
    rng = np.random.default_rng(1)
    digits = Digits.concatenate(select_digits(random_digits(rng, n_hits, event), sensors) for event in range(3, 7))
    write(path, [digits], replace(describe(sensors), nature="stand-in"))
    return digits


# Generate


@each_suffix
@pytest.mark.parametrize(
    ("options", "sensors", "described"),
    [
        (("--sensors", "2.12.2,1.1.1"), (SENSORS[0], SENSORS[39]), ", sensors 1.1.1, 2.12.2"),
        (("--sensors", " 1.1.2 "), (SENSORS[1],), ", sensor 1.1.2"),
        (("--sensors", ",".join(map(str, LAYER_1))), LAYER_1, ", layer 1"),
        (("--layer", 1), LAYER_1, ", layer 1"),
        (("--layer", 2), LAYER_2, ", layer 2"),
        (("--sensors", ",".join(map(str, SENSORS))), SENSORS, ""),
    ],
    ids=str,
)
def test_the_file_holds_the_sensors_of_the_whole_events(
    tmp_path: Path,
    event_wide_graph: GraphFile,
    suffix: str,
    options: tuple[str | int, ...],
    sensors: tuple[Sensor, ...],
    described: str,
) -> None:
    output = tmp_path / f"bg{suffix}"
    given = ("--model", event_wide_graph.path, "--events", 2, "--seed", 3, "--min-charge", 20, "--output", output)
    result = invoke("generate", *given, *options)
    assert result.exit_code == 0, result.output
    assert f"seed 3, stream philox{described}\n" in result.stderr
    generator = Generator(event_wide_graph.path, provider="cpu", seed=3, min_charge=20)
    content = read_digits(output)
    assert content.digits == select_digits(Digits.concatenate(generator.stream(range(2))), sensors)
    assert content.provenance == describe_generation(generator, range(2), sensors)
    assert content.provenance.generated_sensors == sensors
    assert content.provenance.sensors == (None if sensors == SENSORS else tuple(map(str, sensors)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--sensors 1.1.1 --layer 1", "--sensors and --layer both choose sensors: expected one of them, but got 1.1.1"),
        ("--sensors 1.9.1", r"No PXD sensor has the name '1\.9\.1': expected names such as"),
        ("--sensors 1.1.1,2.1.1,1.1.1", r"sensors must hold each sensor once, but has 1\.1\.1 more than once"),
        ("--sensors 1.1.1,", "No PXD sensor has the name ''"),
        ("--sensors 8480", r"No PXD sensor has the name '8480': expected .* to 2\.12\.2, or their VxdIDs, from 8480"),
        ("--layer 0", "--layer"),
        ("--layer 3", "--layer"),
    ],
)
def test_wrong_sensors_are_bad_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latent_graph: GraphFile, options: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("generate", "--model", latent_graph.path, "--output", "bg.npz", *options.split())
    require_failure(result, 2, expected)
    assert names_in(tmp_path) == []


# Files


@each_suffix
def test_a_file_says_which_sensors_it_holds(tmp_path: Path, suffix: str) -> None:
    digits = write_sensors(tmp_path / f"bg{suffix}", LAYER_1[:3])
    content = read_digits(tmp_path / f"bg{suffix}")
    assert (content.digits, content.is_checked) == (digits, True)
    assert content.provenance is not None
    assert content.provenance.sensors == ("1.1.1", "1.1.2", "1.2.1")


@each_suffix
def test_a_file_of_an_older_release_holds_all_sensors(tmp_path: Path, suffix: str) -> None:
    digits = random_digits(np.random.default_rng(1), 40, 3)
    without = {key: value for key, value in METADATA.items() if key != "sensors"}
    path = write_plainly(tmp_path / f"old{suffix}", list_columns(digits), json.dumps(without))
    assert read_provenance(path) == PROVENANCE
    assert read_provenance(path).generated_sensors == SENSORS


@each_suffix
def test_digits_of_another_sensor_are_not_written(tmp_path: Path, suffix: str) -> None:
    digits = random_digits(np.random.default_rng(1), 100, 3)
    path = tmp_path / f"bg{suffix}"
    with pytest.raises(
        ArgumentValueError,
        match=rf"{path.name} was given digits of sensor 2.1.1, expected layer 1 alone by its own metadata",
    ):
        write(path, [select_digits(digits, LAYER_1), select_digits(digits, LAYER_2)], describe(LAYER_1))
    assert names_in(tmp_path) == []


@each_suffix
def test_rows_of_other_sensors_than_the_metadata_say_are_of_unknown_origin(tmp_path: Path, suffix: str) -> None:
    """Another tool merged files of different sensors, and kept the metadata of the first."""
    digits = random_digits(np.random.default_rng(1), 1600, 3)
    kept = json.dumps({**METADATA, "sensors": ["1.1.1"]})
    sensors = {"alone": SENSORS[:1], "merged": (*SENSORS[:1], SENSORS[7])}
    readers = {
        name: open_events(write_plainly(tmp_path / f"{name}{suffix}", list_columns(select_digits(digits, each)), kept))
        for name, each in sensors.items()
    }
    assert readers["alone"].provenance == describe(SENSORS[:1])
    assert readers["merged"].provenance is None
    assert readers["merged"].remark == "its metadata describe sensor 1.1.1 alone, but it holds digits of sensor 1.4.2"
    assert "provenance: unknown (its metadata describe sensor 1.1.1" in words(
        invoke("show", readers["merged"].path).stdout
    )


@pytest.mark.parametrize(
    ("others", "expected"),
    [(LAYER_2, "layer 1 and layer 2"), (LAYER_1[:2], r"layer 1 and sensors 1\.1\.1, 1\.1\.2")],
)
def test_files_of_other_sensors_are_not_one_sample(tmp_path: Path, others: tuple[Sensor, ...], expected: str) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.npz"]
    write_sensors(paths[0], LAYER_1)
    write_sensors(paths[1], others)
    with pytest.raises(DigitFileError, match=rf"are not one sample: their sensors differ, {expected}\. Give them one"):
        merge_files(paths)


def test_files_of_the_same_sensors_are_one_sample(tmp_path: Path) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.npz"]
    digits = write_sensors(paths[0], LAYER_1)
    write(paths[1], [digits], replace(describe(LAYER_1), seed=8, nature="stand-in"))
    assert merge_files(paths).n_events == 8


# Commands


def test_show_takes_no_missing_sensor_for_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "bg.parquet"
    digits = write_sensors(path, LAYER_1[:3])
    result = invoke("show", path)
    assert result.exit_code == 0, result.output
    counted = digits.select_rows(digits.charge >= READOUT_THRESHOLD_ADU)
    (part,) = summarise(counted, 4, LAYER_1[:3])
    assert part.occupancy == pytest.approx(len(counted) / (4 * 3 * 250 * 768))
    assert row_of(result.stdout, "layer 1")[1:4] == [
        f"{part.digits_per_event:,.0f}",
        f"{100 * part.occupancy:.2f} %",
        "1.49 %",
    ]
    assert "layer 2" not in result.stdout
    assert re.search(r"(?m)^\W*both layers", result.stdout) is None, "it would be a row of the table"
    assert "stream philox, sensors 1.1.1, 1.1.2, 1.2.1, pxdbg-runtime" in words(result.stdout)


def test_show_compares_no_mean_over_some_sensors_of_both_layers(tmp_path: Path) -> None:
    path = tmp_path / "bg.parquet"
    digits = write_sensors(path, SENSORS[14:20])
    stdout = invoke("show", path).stdout
    occupancy = np.count_nonzero(digits.charge >= READOUT_THRESHOLD_ADU) / (4 * 6 * 250 * 768)
    assert row_of(stdout, "both layers")[2:4] == [f"{100 * occupancy:.2f} %", ""]
    assert row_of(stdout, "both layers")[5] == ""
    assert [row_of(stdout, f"layer {layer}")[3] for layer in (1, 2)] == ["1.49 %", "0.51 %"]


@pytest.mark.slow
def test_plot_says_which_sensors_were_generated(tmp_path: Path) -> None:
    path = tmp_path / "bg.parquet"
    digits = write_sensors(path, LAYER_1[:3], n_hits=40_000).of_event(3)
    result = invoke("plot", path, "--output", tmp_path / "event.svg")
    assert result.exit_code == 0, result.output
    picture = (tmp_path / "event.svg").read_text(encoding="utf-8")
    occupancy = 100 * len(digits) / (3 * 250 * 768)
    for text in (
        "PXD background, event 3: tiny, seed -7, 3 of 40 sensors",
        f"layer 1: 3 of 16 sensors, {len(digits):,} digits, occupancy {occupancy:.2f} %",
        "layer 2: not generated",
    ):
        assert text in picture


def test_validate_needs_all_sensors(tmp_path: Path) -> None:
    write_sensors(tmp_path / "bg.parquet", LAYER_1)
    result = invoke("validate", tmp_path / "bg.parquet", "--report", tmp_path / "out.html")
    assert result.exit_code == 2
    assert "bg.parquet contains only layer 1, but a validation needs all 40 sensors" in words(result.stderr)
    assert names_in(tmp_path) == ["bg.parquet"]
