"""Summary figures of background: occupancy and mean charge by layer and by sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.sensors import (
    INDEX_BY_VXD_ID,
    LADDERS_OF_LAYER,
    MAX_CHARGE_ADU,
    N_SENSORS,
    PIXELS_PER_SENSOR,
    SENSORS,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.sensors import Sensor

__all__ = ["GEANT4_MEAN_CHARGE", "GEANT4_OCCUPANCIES", "PartSummary", "SummaryCounter"]


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """Figures of one part of the detector.

    Attributes
    ----------
    part : str
        ``layer 1``, ``layer 2``, ``both layers``, or a sensor such as ``1.3.2``.
    digits_per_event : float
    occupancy : float
        Share of the pixels with a hit, mean over sensors and events, 0 to 1.
    mean_charge : float or None
        Of the hits, ADU; None if there are no hits.
    """

    part: str
    digits_per_event: float
    occupancy: float
    mean_charge: float | None


GEANT4_OCCUPANCIES: Final = {"layer 1": 0.0149, "layer 2": 0.0051, "both layers": 0.0090}
"""Mean occupancies of the Geant4 simulation. Source: public statistics of the IEA-GAN authors, 10,000 events."""
GEANT4_MEAN_CHARGE: Final = 22.0
"""Mean charge of a hit of the Geant4 simulation, ADU; the same source."""
_CHARGES: Final = MAX_CHARGE_ADU + 1
"""Values of a charge, 0 to 255 ADU."""


class SummaryCounter:
    """Counts the charges of the digits of each sensor, block by block, for `PartSummary`."""

    def __init__(self) -> None:
        self._charge_counts = np.zeros((N_SENSORS, _CHARGES), dtype=np.int64)

    @property
    def n_digits(self) -> int:
        """Number of digits so far."""
        return int(self._charge_counts.sum())

    @property
    def smallest_charge(self) -> int | None:
        """Smallest charge so far, ADU; None before the first digit."""
        charges = np.flatnonzero(self._charge_counts.sum(axis=0))
        return int(charges[0]) if len(charges) else None

    def add(self, digits: Digits) -> None:
        """Add digits of sensors of the PXD, in any order; others are not counted."""
        bins = INDEX_BY_VXD_ID[digits.sensor_id] * _CHARGES + digits.charge
        counts = np.bincount(bins, minlength=(N_SENSORS + 1) * _CHARGES).reshape(N_SENSORS + 1, _CHARGES)
        self._charge_counts += counts[:N_SENSORS]

    def summarise(
        self, n_events: int, sensors: Sequence[Sensor] = SENSORS, *, min_charge: int = 1
    ) -> tuple[PartSummary, ...]:
        """Summarise all digits so far: each layer, then both together.

        Parameters
        ----------
        n_events : int
            Number of events, those without digits included; 1 or more.
        sensors : sequence of Sensor
            The sensors that the events have, those without digits included. A layer without any has no summary.
        min_charge : int
            Cut in ADU: digits below it are left out.
        """
        counts = self._charge_counts * (np.arange(_CHARGES) >= min_charge)
        chosen = {layer: [each.index for each in sensors if each.layer == layer] for layer in LADDERS_OF_LAYER}
        parts = [_summarise_part(f"layer {layer}", counts[index], n_events) for layer, index in chosen.items() if index]
        if len(parts) > 1:
            index = [sensor.index for sensor in sensors]
            parts.append(_summarise_part("both layers", counts[index], n_events))
        return tuple(parts)

    def summarise_sensors(self, n_events: int, *, min_charge: int = 1) -> tuple[PartSummary, ...]:
        """Summarise the digits of each sensor so far, by sensor index.

        Parameters
        ----------
        n_events : int
            As for `summarise`.
        min_charge : int
            Cut in ADU: digits below it are left out.
        """
        counts = (self._charge_counts * (np.arange(_CHARGES) >= min_charge))[:, None]
        return tuple(_summarise_part(str(sensor), counts[sensor.index], n_events) for sensor in SENSORS)


def _summarise_part(name: str, charge_counts: NDArray[np.int64], n_events: int) -> PartSummary:
    """Summarise sensors; the counts have the shape (sensors, 256)."""
    n_digits = int(charge_counts.sum())
    return PartSummary(
        part=name,
        digits_per_event=n_digits / n_events,
        occupancy=n_digits / (n_events * len(charge_counts) * PIXELS_PER_SENSOR),
        mean_charge=float(charge_counts.sum(axis=0) @ np.arange(_CHARGES)) / n_digits if n_digits else None,
    )
