"""The figures by which one judges background at a glance: occupancy and mean charge, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.sensors import LADDERS_OF_LAYER, PIXELS_PER_SENSOR, SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits

__all__ = ["REAL_BACKGROUND", "PartSummary", "summarise"]


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """Figures of a part of the detector.

    Attributes
    ----------
    part : str
        ``layer 1``, ``layer 2`` or ``both layers``.
    digits_per_event : float
    occupancy : float
        Share of the pixels with a hit, mean over sensors and events, 0 to 1.
    mean_charge : float or None
        Of the hits, ADU; None if there is none.
    """

    part: str
    digits_per_event: float
    occupancy: float
    mean_charge: float | None


REAL_BACKGROUND: Final = {"layer 1": 0.0149, "layer 2": 0.0051, "both layers": 0.0090}
"""Mean occupancy of the real sample. Source: public Geant4 statistics of the IEA-GAN authors, 10,000 events."""
REAL_MEAN_CHARGE: Final = 22.0
"""Mean charge of a hit in the real sample, ADU; the same source."""


def summarise(digits: Digits, n_events: int) -> tuple[PartSummary, ...]:
    """Summarise digits by layer.

    Parameters
    ----------
    digits : Digits
        Of all events.
    n_events : int
        Number of events, those without digits included.

    Returns
    -------
    tuple of PartSummary
        Each layer, then both together.
    """
    layer_of_hit = _layer_of(digits.sensor_id)
    parts = [
        _part(f"layer {layer}", digits.charge[layer_of_hit == layer], _sensors_of(layer), n_events)
        for layer in LADDERS_OF_LAYER
    ]
    return (*parts, _part("both layers", digits.charge, len(SENSORS), n_events))


def _part(name: str, charge: NDArray[np.uint8], n_sensors: int, n_events: int) -> PartSummary:
    return PartSummary(
        part=name,
        digits_per_event=len(charge) / n_events,
        occupancy=len(charge) / (n_events * n_sensors * PIXELS_PER_SENSOR),
        mean_charge=float(charge.mean()) if len(charge) else None,
    )


def _sensors_of(layer: int) -> int:
    return sum(sensor.layer == layer for sensor in SENSORS)


def _layer_of(sensor_id: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Read the layer off VxdIDs: their upper three bits."""
    return sensor_id >> np.uint16(13)
