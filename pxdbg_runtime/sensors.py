"""The forty sensors of the Belle II pixel detector, in the order in which events are generated.

Numbering and order are those of basf2: index 0 to 39 runs over layer, then ladder, then sensor, all
ascending; a VxdID packs them in sixteen bits.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "LADDERS_OF_LAYER",
    "MAX_CHARGE_ADU",
    "N_SENSORS",
    "N_U_CELLS",
    "N_V_CELLS",
    "PIXELS_PER_SENSOR",
    "SENSORS",
    "SENSORS_PER_LADDER",
    "Sensor",
    "sensor_of",
    "vxd_id",
]

N_U_CELLS = 250
"""Pixels of a sensor along u (r-phi)."""
N_V_CELLS = 768
"""Pixels of a sensor along v (z)."""
MAX_CHARGE_ADU = 255
"""Largest charge of a pixel: the read-out has eight bits."""
PIXELS_PER_SENSOR = N_U_CELLS * N_V_CELLS
LADDERS_OF_LAYER = {1: 8, 2: 12}
SENSORS_PER_LADDER = 2


def vxd_id(layer: int, ladder: int, sensor: int) -> int:
    """Pack a sensor's place in the sixteen bits of a basf2 VxdID (segment 0).

    Examples
    --------
    >>> vxd_id(1, 1, 1)
    8480
    """
    return layer << 13 | ladder << 8 | sensor << 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """One PXD sensor: 250 u cells by 768 v cells.

    Attributes
    ----------
    index : int
        Place along the event axis, 0 to 39.
    layer, ladder, sensor : int
        Place in the detector, counted from 1.
    """

    index: int
    layer: int
    ladder: int
    sensor: int

    @property
    def vxd_id(self) -> int:
        """The sixteen-bit VxdID, segment 0."""
        return vxd_id(self.layer, self.ladder, self.sensor)

    def __str__(self) -> str:
        return f"{self.layer}.{self.ladder}.{self.sensor}"


def _all_sensors() -> tuple[Sensor, ...]:
    places = [
        (layer, ladder, sensor)
        for layer, n_ladders in LADDERS_OF_LAYER.items()
        for ladder in range(1, n_ladders + 1)
        for sensor in range(1, SENSORS_PER_LADDER + 1)
    ]
    return tuple(
        Sensor(index=index, layer=layer, ladder=ladder, sensor=sensor)
        for index, (layer, ladder, sensor) in enumerate(places)
    )


SENSORS: tuple[Sensor, ...] = _all_sensors()
"""All sensors, ordered by index."""
N_SENSORS = len(SENSORS)

_BY_VXD_ID = {sensor.vxd_id: sensor for sensor in SENSORS}


def sensor_of(vxd_id: int) -> Sensor:
    """Find the sensor with a VxdID.

    Raises
    ------
    ValueError
        If no PXD sensor has this VxdID.

    Examples
    --------
    >>> str(sensor_of(8480))
    '1.1.1'
    """
    try:
        return _BY_VXD_ID[int(vxd_id)]
    except KeyError:
        message = (
            f"No PXD sensor has the VxdID {vxd_id}: expected one of the {N_SENSORS} in "
            "pxdbg_runtime.SENSORS, from 8480 (1.1.1) to 19520 (2.12.2)."
        )
        raise ValueError(message) from None
