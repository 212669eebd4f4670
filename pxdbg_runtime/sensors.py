"""The forty sensors of the Belle II pixel detector, in the order in which events are generated.

Numbering and order are those of basf2: index 0 to 39 runs over layer, then ladder, then sensor, all
ascending; a VxdID packs them in sixteen bits.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, SupportsIndex

import numpy as np

from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "INDEX_BY_VXD_ID",
    "LADDERS_OF_LAYER",
    "LAYER_OF_SENSOR",
    "MAX_CHARGE_ADU",
    "N_SENSORS",
    "N_U_CELLS",
    "N_V_CELLS",
    "PIXELS_PER_SENSOR",
    "PLACE_OF_SENSOR",
    "READOUT_THRESHOLD_ADU",
    "SENSORS",
    "SENSORS_PER_LADDER",
    "Sensor",
    "SensorLike",
    "describe_sensors",
    "pack_vxd_id",
    "select_layer",
    "select_sensors",
    "sensor_of",
    "unpack_vxd_ids",
]

N_U_CELLS: Final = 250
"""Pixels of a sensor along u (r-phi)."""
N_V_CELLS: Final = 768
"""Pixels of a sensor along v (z)."""
MAX_CHARGE_ADU: Final = 255
"""Largest charge of a pixel: the read-out has eight bits."""
READOUT_THRESHOLD_ADU: Final = 7
"""Smallest charge of a hit in the public samples and their marginals. Source: IEA-GAN's authors."""
PIXELS_PER_SENSOR: Final = N_U_CELLS * N_V_CELLS
LADDERS_OF_LAYER: Final = {1: 8, 2: 12}
SENSORS_PER_LADDER: Final = 2
_LAYER_SHIFT: Final = 13
_LADDER_SHIFT: Final = 8
_SENSOR_SHIFT: Final = 5
_LADDER_MASK: Final = (1 << _LAYER_SHIFT - _LADDER_SHIFT) - 1
_SENSOR_MASK: Final = (1 << _LADDER_SHIFT - _SENSOR_SHIFT) - 1


def pack_vxd_id(layer: int, ladder: int, sensor: int) -> int:
    """Pack layer, ladder and sensor into the sixteen bits of a basf2 VxdID (segment 0).

    Examples
    --------
    >>> pack_vxd_id(1, 1, 1)
    8480
    """
    return layer << _LAYER_SHIFT | ladder << _LADDER_SHIFT | sensor << _SENSOR_SHIFT


def unpack_vxd_ids(vxd_ids: NDArray[np.uint16]) -> dict[str, NDArray[np.uint8]]:
    """Unpack VxdIDs into columns `layer`, `ladder` and `sensor`, the inverse of `pack_vxd_id`."""
    return {
        "layer": (vxd_ids >> _LAYER_SHIFT).astype(np.uint8),
        "ladder": (vxd_ids >> _LADDER_SHIFT & _LADDER_MASK).astype(np.uint8),
        "sensor": (vxd_ids >> _SENSOR_SHIFT & _SENSOR_MASK).astype(np.uint8),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """One PXD sensor: 250 u cells by 768 v cells.

    Attributes
    ----------
    index : int
        Index along the event axis, 0 to 39.
    layer, ladder, sensor : int
        Numbers in the detector, from 1.
    """

    index: int
    layer: int
    ladder: int
    sensor: int

    @property
    def vxd_id(self) -> int:
        """The sixteen-bit VxdID, segment 0."""
        return pack_vxd_id(self.layer, self.ladder, self.sensor)

    def __str__(self) -> str:
        return f"{self.layer}.{self.ladder}.{self.sensor}"


def _build_sensors() -> tuple[Sensor, ...]:
    numbers = [
        (layer, ladder, sensor)
        for layer, n_ladders in LADDERS_OF_LAYER.items()
        for ladder in range(1, n_ladders + 1)
        for sensor in range(1, SENSORS_PER_LADDER + 1)
    ]
    return tuple(
        Sensor(index=index, layer=layer, ladder=ladder, sensor=sensor)
        for index, (layer, ladder, sensor) in enumerate(numbers)
    )


SENSORS: Final[tuple[Sensor, ...]] = _build_sensors()
"""All sensors, ordered by index."""
N_SENSORS: Final = len(SENSORS)
LAYER_OF_SENSOR: Final = np.array([sensor.layer for sensor in SENSORS])
"""Layer of each sensor, by index."""
PLACE_OF_SENSOR: Final = np.arange(N_SENSORS) + 1.5 * (LAYER_OF_SENSOR - 1)
"""Of each sensor along the axis of a figure; a gap separates the layers."""
INDEX_BY_VXD_ID: Final = np.full(1 << 16, N_SENSORS, dtype=np.int64)
"""Index of the sensor of each VxdID; 40 if it is no sensor of the PXD."""
INDEX_BY_VXD_ID[[sensor.vxd_id for sensor in SENSORS]] = range(N_SENSORS)
for _table in (LAYER_OF_SENSOR, PLACE_OF_SENSOR, INDEX_BY_VXD_ID):
    _table.flags.writeable = False

SensorLike = Sensor | str | SupportsIndex
"""Wherever a sensor is asked for: a `Sensor`, its name, such as "1.1.1", or its VxdID."""

_BY_VXD_ID: Final = {sensor.vxd_id: sensor for sensor in SENSORS}
_BY_NAME: Final = {str(sensor): sensor for sensor in SENSORS}


def sensor_of(sensor: SensorLike) -> Sensor:
    """Find a sensor by its name or VxdID; a `Sensor` is found by itself.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If the argument is of another type, or no PXD sensor has this name or VxdID.

    Examples
    --------
    >>> str(sensor_of(8480))
    '1.1.1'
    >>> sensor_of("2.12.2").index
    39
    """
    if isinstance(sensor, Sensor):
        return sensor_of(str(sensor))
    if isinstance(sensor, str):
        found, what = _BY_NAME.get(sensor), f"name {sensor!r}"
    else:
        try:
            vxd_id = operator.index(sensor)
        except TypeError:
            message = (
                f"A sensor must be a Sensor, a name such as {str(SENSORS[0])!r}, or a VxdID, but is {sensor!r} "
                f"({type(sensor).__name__})."
            )
            raise ArgumentTypeError("sensor", message) from None
        found, what = _BY_VXD_ID.get(vxd_id), f"VxdID {vxd_id}"
    if found is None:
        message = (
            f"No PXD sensor has the {what}: expected names such as {SENSORS[0]} (layer.ladder.sensor), from "
            f"{SENSORS[0]} to {SENSORS[-1]}, or their VxdIDs, from {SENSORS[0].vxd_id} to {SENSORS[-1].vxd_id}."
        )
        raise ArgumentValueError("sensor", message)
    return found


def select_sensors(sensors: Iterable[SensorLike] | None) -> tuple[Sensor, ...]:
    """Find several sensors, in the order of their indices.

    Parameters
    ----------
    sensors : iterable of Sensor, str or int, optional
        Different sensors, at least one, in any order, each as `sensor_of` takes it; all forty if None.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If it is no such iterable, or holds no sensor, an unknown one, or one twice.

    Examples
    --------
    >>> [sensor.index for sensor in select_sensors(["2.12.2", "1.1.1"])]
    [0, 39]
    """
    if sensors is None:
        return SENSORS
    if isinstance(sensors, str) or getattr(sensors, "ndim", 1) == 0 or not isinstance(sensors, Iterable):
        message = f"sensors must be a list of sensors, such as ['1.1.1', '2.12.2'], but is {sensors!r}."
        raise ArgumentTypeError("sensors", message)
    listed = [sensor_of(each) for each in sensors]
    if not listed:
        raise ArgumentValueError("sensors", "sensors must hold at least one sensor, but is empty.")
    chosen = tuple(sorted(set(listed), key=operator.attrgetter("index")))
    if len(chosen) < len(listed):
        twice = next(sensor for sensor in chosen if listed.count(sensor) > 1)
        raise ArgumentValueError("sensors", f"sensors must hold each sensor once, but has {twice} more than once.")
    return chosen


def select_layer(layer: int) -> tuple[Sensor, ...]:
    """Find the sensors of layer 1 or 2, in the order of their indices."""
    return tuple(sensor for sensor in SENSORS if sensor.layer == layer)


def describe_sensors(sensors: tuple[Sensor, ...]) -> str:
    """Describe sensors, ordered by index, in a few words if they are all of a layer or of the detector.

    Examples
    --------
    >>> describe_sensors(SENSORS), describe_sensors(SENSORS[:16]), describe_sensors(SENSORS[:2])
    ('all 40 sensors', 'layer 1', 'sensors 1.1.1, 1.1.2')
    """
    if sensors == SENSORS:
        return f"all {N_SENSORS} sensors"
    for layer in LADDERS_OF_LAYER:
        if sensors == select_layer(layer):
            return f"layer {layer}"
    return f"sensor{'s' if len(sensors) > 1 else ''} {', '.join(map(str, sensors))}"
