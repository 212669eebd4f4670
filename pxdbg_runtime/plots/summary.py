"""Summary figures of background: occupancy and mean charge by layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.sensors import LADDERS_OF_LAYER, MAX_CHARGE_ADU, PIXELS_PER_SENSOR, SENSORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.sensors import Sensor

__all__ = ["LAYER_BY_VXD_ID", "REAL_BACKGROUND", "REAL_MEAN_CHARGE", "PartSummary", "SummaryCounter", "summarise"]


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """Figures of one part of the detector.

    Attributes
    ----------
    part : str
        ``layer 1``, ``layer 2`` or ``both layers``.
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


REAL_BACKGROUND: Final = {"layer 1": 0.0149, "layer 2": 0.0051, "both layers": 0.0090}
"""Mean occupancy of the real sample. Source: public Geant4 statistics of the IEA-GAN authors, 10,000 events."""
REAL_MEAN_CHARGE: Final = 22.0
"""Mean charge of a hit in the real sample, ADU; the same source."""
_CHARGES: Final = MAX_CHARGE_ADU + 1
"""Values of a charge, 0 to 255 ADU."""
LAYER_BY_VXD_ID: Final = np.zeros(1 << 16, dtype=np.uint8)
"""Layer of each VxdID; 0 if it is no sensor of the PXD."""
LAYER_BY_VXD_ID[[sensor.vxd_id for sensor in SENSORS]] = [sensor.layer for sensor in SENSORS]


class SummaryCounter:
    """Counts the charges of digits, block by block, for `PartSummary`."""

    def __init__(self) -> None:
        self._charge_counts = dict.fromkeys(LADDERS_OF_LAYER, np.zeros(_CHARGES, dtype=np.int64))

    @property
    def n_digits(self) -> int:
        """Number of digits so far."""
        return int(self._sum_counts().sum())

    @property
    def smallest_charge(self) -> int | None:
        """Smallest charge so far, ADU; None before the first digit."""
        charges = np.flatnonzero(self._sum_counts())
        return int(charges[0]) if len(charges) else None

    def add(self, digits: Digits) -> None:
        """Add digits of sensors of the PXD, in any order."""
        layer_of_hit = LAYER_BY_VXD_ID[digits.sensor_id]
        for layer, counts in self._charge_counts.items():
            of_layer = digits.charge[layer_of_hit == layer]
            self._charge_counts[layer] = counts + np.bincount(of_layer, minlength=_CHARGES)

    def summarise(self, n_events: int, sensors: Sequence[Sensor] = SENSORS) -> tuple[PartSummary, ...]:
        """Summarise all digits so far: each layer, then both together.

        Parameters
        ----------
        n_events : int
            Number of events, those without digits included; 1 or more.
        sensors : sequence of Sensor
            The sensors that the events have, those without digits included. A layer without any has no summary.
        """
        n_sensors = Counter(sensor.layer for sensor in sensors)
        parts = [
            _summarise_part(f"layer {layer}", counts, n_sensors[layer], n_events)
            for layer, counts in self._charge_counts.items()
            if n_sensors[layer]
        ]
        both = _summarise_part("both layers", self._sum_counts(), len(sensors), n_events)
        return (*parts, both) if len(parts) > 1 else (*parts,)

    def _sum_counts(self) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = np.stack(list(self._charge_counts.values())).sum(axis=0)
        return counts


def summarise(digits: Digits, n_events: int, sensors: Sequence[Sensor] = SENSORS) -> tuple[PartSummary, ...]:
    """Summarise digits by layer.

    Parameters
    ----------
    digits : Digits
        Of all events.
    n_events : int
        Number of events, those without digits included.
    sensors : sequence of Sensor
        The sensors that the events have, those without digits included.

    Returns
    -------
    tuple of PartSummary
        Each layer, then both together, as `SummaryCounter.summarise`.
    """
    counter = SummaryCounter()
    counter.add(digits)
    return counter.summarise(n_events, sensors)


def _summarise_part(name: str, charge_counts: NDArray[np.int64], n_sensors: int, n_events: int) -> PartSummary:
    n_digits = int(charge_counts.sum())
    return PartSummary(
        part=name,
        digits_per_event=n_digits / n_events,
        occupancy=n_digits / (n_events * n_sensors * PIXELS_PER_SENSOR),
        mean_charge=float(charge_counts @ np.arange(_CHARGES)) / n_digits if n_digits else None,
    )
