"""The forty sensors of the Belle II pixel detector, in the order in which events are generated.

Numbering and order are those of basf2: index 0 to 39 runs over layer, then ladder, then sensor, all
ascending; a VxdID packs them in sixteen bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
    "pack_vxd_id",
    "sensor_of",
]

N_U_CELLS: Final = 250
"""Pixels of a sensor along u (r-phi)."""
N_V_CELLS: Final = 768
"""Pixels of a sensor along v (z)."""
MAX_CHARGE_ADU: Final = 255
"""Largest charge of a pixel: the read-out has eight bits."""
PIXELS_PER_SENSOR: Final = N_U_CELLS * N_V_CELLS
LADDERS_OF_LAYER: Final = {1: 8, 2: 12}
SENSORS_PER_LADDER: Final = 2
_LAYER_SHIFT: Final = 13
_LADDER_SHIFT: Final = 8
_SENSOR_SHIFT: Final = 5


def pack_vxd_id(layer: int, ladder: int, sensor: int) -> int:
    """Pack layer, ladder and sensor into the sixteen bits of a basf2 VxdID (segment 0).

    Examples
    --------
    >>> pack_vxd_id(1, 1, 1)
    8480
    """
    return layer << _LAYER_SHIFT | ladder << _LADDER_SHIFT | sensor << _SENSOR_SHIFT


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
            f"pxdbg_runtime.SENSORS, from {SENSORS[0].vxd_id} ({SENSORS[0]}) to {SENSORS[-1].vxd_id} ({SENSORS[-1]})."
        )
        raise ValueError(message) from None
