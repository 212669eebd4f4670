"""The forty sensors, their order, and their VxdIDs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import pxdbg_runtime
from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError
from pxdbg_runtime.sensors import (
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    PIXELS_PER_SENSOR,
    SENSORS,
    Sensor,
    describe_sensors,
    pack_vxd_id,
    select_layer,
    select_sensors,
    sensor_of,
)

KNOWN = {0: "1.1.1", 1: "1.1.2", 2: "1.2.1", 15: "1.8.2", 16: "2.1.1", 39: "2.12.2"}
"""Places along the event axis that basf2's order gives."""


def test_counts() -> None:
    assert (N_SENSORS, N_U_CELLS, N_V_CELLS) == (40, 250, 768)
    assert N_SENSORS * PIXELS_PER_SENSOR == 7_680_000
    assert len(SENSORS) == 40


def test_indices_run_over_layer_then_ladder_then_sensor() -> None:
    assert [sensor.index for sensor in SENSORS] == list(range(40))
    places = [(sensor.layer, sensor.ladder, sensor.sensor) for sensor in SENSORS]
    assert places == sorted(places)
    assert sum(layer == 1 for layer, _, _ in places) == 16
    assert {index: str(SENSORS[index]) for index in KNOWN} == KNOWN


def test_vxd_ids_pack_layer_ladder_and_sensor() -> None:
    for sensor in SENSORS:
        packed = sensor.vxd_id
        assert packed < 1 << 16
        assert (packed >> 13, packed >> 8 & 31, packed >> 5 & 7, packed & 31) == (
            sensor.layer,
            sensor.ladder,
            sensor.sensor,
            0,
        )
        assert packed == pack_vxd_id(sensor.layer, sensor.ladder, sensor.sensor)
    assert (SENSORS[0].vxd_id, SENSORS[-1].vxd_id) == (8480, 19520)
    assert len({sensor.vxd_id for sensor in SENSORS}) == 40


def test_sensor_of_finds_each_one_by_itself_its_name_and_its_vxd_id() -> None:
    for sensor in SENSORS:
        assert sensor_of(sensor) is sensor
        assert sensor_of(str(sensor)) is sensor
        assert sensor_of(sensor.vxd_id) is sensor
        assert sensor_of(np.uint16(sensor.vxd_id)) is sensor


@pytest.mark.parametrize("unknown", [-1, 0, 39, True, 8479, 8481, 8480 + (3 << 5), 19521, 1 << 16])
def test_sensor_of_refuses_the_vxd_id_of_no_pxd_sensor(unknown: int) -> None:
    with pytest.raises(
        ArgumentValueError, match=rf"No PXD sensor has the VxdID {int(unknown)}: expected names such as 1.1.1 "
    ):
        sensor_of(unknown)


@pytest.mark.parametrize("unknown", ["", "1.9.1", "3.1.1", "1.1.3", "1.1", "01.1.1", " 1.1.1", "8480"])
def test_sensor_of_refuses_the_name_of_no_pxd_sensor(unknown: str) -> None:
    with pytest.raises(
        ArgumentValueError,
        match=rf"No PXD sensor has the name '{unknown}': expected .*\(layer\.ladder\.sensor\), from 1\.1\.1",
    ):
        sensor_of(unknown)


def test_sensor_of_refuses_a_sensor_that_the_pxd_lacks() -> None:
    with pytest.raises(ArgumentValueError, match=r"No PXD sensor has the name '3\.1\.1'"):
        sensor_of(Sensor(index=0, layer=3, ladder=1, sensor=1))


@pytest.mark.parametrize("wrong", [None, 8480.0, ["1.1.1"], b"1.1.1", np.array([8480, 8512])])
def test_sensor_of_refuses_other_types(wrong: object) -> None:
    with pytest.raises(ArgumentTypeError, match=r"A sensor must be a Sensor, a name such as '1\.1\.1', or a VxdID"):
        sensor_of(wrong)  # type: ignore[arg-type]  # the point of the test


def test_sensors_are_selected_in_the_order_of_their_indices() -> None:
    expected = (SENSORS[0], SENSORS[3], SENSORS[39])
    assert select_sensors(["2.12.2", SENSORS[3], 8480]) == expected
    assert select_sensors(iter(("1.2.2", "1.1.1", "2.12.2"))) == expected
    assert select_sensors(np.array([19520, 8480, 8480 + 256 + 32], dtype=np.uint16)) == expected
    assert select_sensors(None) == select_sensors(reversed(SENSORS)) == SENSORS


@pytest.mark.parametrize(
    ("sensors", "error", "message"),
    [
        ([], ArgumentValueError, "^sensors must hold at least one sensor, but is empty"),
        (
            ["1.1.1", "1.2.1", 8480],
            ArgumentValueError,
            r"^sensors must hold each sensor once, but has 1\.1\.1 more than",
        ),
        (["1.1.1", "1.9.1"], ArgumentValueError, r"^No PXD sensor has the name '1\.9\.1'"),
        (["1.1.1", None], ArgumentTypeError, "^A sensor must be a Sensor"),
        ("1.1.1", ArgumentTypeError, r"^sensors must be a list of sensors, such as .*, but is '1\.1\.1'"),
        (np.array("1.1.1"), ArgumentTypeError, "^sensors must be a list of sensors, .*, but is array"),
        (8480, ArgumentTypeError, "^sensors must be a list of sensors, .*, but is 8480"),
        (SENSORS[0], ArgumentTypeError, "^sensors must be a list of sensors"),
    ],
)
def test_a_selection_of_other_things_is_refused(
    sensors: object, error: type[ArgumentTypeError | ArgumentValueError], message: str
) -> None:
    with pytest.raises(error, match=message):
        select_sensors(sensors)  # type: ignore[arg-type]  # the point of the test


def test_layers_are_selected_and_described() -> None:
    assert (select_layer(1), select_layer(2)) == (SENSORS[:16], SENSORS[16:])
    described = [describe_sensors(each) for each in (SENSORS, SENSORS[:16], SENSORS[16:], SENSORS[:15], SENSORS[39:])]
    assert described[:3] == ["all 40 sensors", "layer 1", "layer 2"]
    assert described[3].startswith("sensors 1.1.1, 1.1.2, 1.2.1, ")
    assert described[4] == "sensor 2.12.2"


def test_sensors_are_frozen_and_named() -> None:
    sensor = Sensor(index=0, layer=1, ladder=1, sensor=1)
    assert sensor == SENSORS[0]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
        sensor.layer = 2  # type: ignore[misc]  # the point of the test


def test_the_package_shows_its_public_names_alone() -> None:
    assert dir(pxdbg_runtime) == sorted(pxdbg_runtime.__all__)
    assert all(getattr(pxdbg_runtime, name) is not None for name in pxdbg_runtime.__all__)
