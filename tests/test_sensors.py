"""The forty sensors, their order, and their VxdIDs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import pxdbg_runtime
from pxdbg_runtime.sensors import (
    N_SENSORS,
    N_U_CELLS,
    N_V_CELLS,
    PIXELS_PER_SENSOR,
    SENSORS,
    Sensor,
    pack_vxd_id,
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


def test_sensor_of_finds_each_one_also_by_a_number_of_numpy() -> None:
    for sensor in SENSORS:
        assert sensor_of(sensor.vxd_id) is sensor
        assert sensor_of(int(np.uint16(sensor.vxd_id))) is sensor


@pytest.mark.parametrize("unknown", [-1, 0, 8479, 8481, 8480 + (3 << 5), 19521, 1 << 16])
def test_sensor_of_refuses_what_is_no_pxd_sensor(unknown: int) -> None:
    with pytest.raises(ValueError, match=rf"No PXD sensor has the VxdID {unknown}: expected one of the 40"):
        sensor_of(unknown)


def test_sensors_are_frozen_and_named() -> None:
    sensor = Sensor(index=0, layer=1, ladder=1, sensor=1)
    assert sensor == SENSORS[0]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
        sensor.layer = 2  # type: ignore[misc]  # the point of the test


def test_the_package_shows_its_public_names_alone() -> None:
    assert dir(pxdbg_runtime) == sorted(pxdbg_runtime.__all__)
    assert all(getattr(pxdbg_runtime, name) is not None for name in pxdbg_runtime.__all__)
