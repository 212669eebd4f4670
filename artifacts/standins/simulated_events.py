"""Simulated events as digits: each from the seed and its number alone, so events can be made in any order, side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np

from artifacts.standins.marginals import READOUT_THRESHOLD_ADU
from artifacts.standins.simulation import RAW_THRESHOLD, charges_of_hits, occupancies_of_events, raw_sensor
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.formats.provenance import Provenance
from pxdbg_runtime.sensors import SENSORS, Sensor
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["how_simulated", "simulated_events"]

_PROVENANCE: Final = (
    "Simulated clusters, tuned to the public Geant4 marginals of the PXD background by the IEA-GAN authors: charge "
    "spectrum and occupancies are theirs, the shapes of the clusters are a caricature. Not the collaboration's simulation."
)
_WORD: Final = 2**64


def how_simulated(events: range, seed: int) -> Provenance:
    """Describe the digits of simulated events, for the file they go to."""
    return Provenance(
        model="simulation",
        nature="simulation",
        provenance=_PROVENANCE,
        precision=None,
        graph_sha256=None,
        seed=seed,
        random_stream="philox",
        first_event=events.start,
        events=len(events),
        min_charge=READOUT_THRESHOLD_ADU,
        provider="numba",
        version=__version__,
    )


def simulated_events(events: range, seed: int, *, n_threads: int = 1) -> Iterator[Digits]:
    """Simulate events.

    Parameters
    ----------
    events : range
        Their numbers.
    seed : int
        Any signed 64-bit integer.
    n_threads : int
        Sensors at a time; they change nothing in the digits.

    Yields
    ------
    Digits
        Of one event after the other.
    """
    with ThreadPoolExecutor(n_threads) as pool:
        for event in events:
            rng = np.random.Generator(np.random.Philox(key=np.array([seed % _WORD, event], np.uint64)))
            occupancies = occupancies_of_events(1, rng)[0].tolist()
            seeds = rng.integers(0, 2**32, len(SENSORS)).tolist()
            yield Digits.concatenate(pool.map(_sensor_digits, [event] * len(SENSORS), SENSORS, occupancies, seeds))


def _sensor_digits(event: int, sensor: Sensor, occupancy: float, seed: int) -> Digits:
    raw = raw_sensor(occupancy, sensor.layer, seed)
    u_cell, v_cell = np.nonzero(raw >= RAW_THRESHOLD)
    return Digits(
        event=np.full(len(u_cell), event, np.int64),
        sensor_id=np.full(len(u_cell), sensor.vxd_id, np.uint16),
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=charges_of_hits(raw[u_cell, v_cell]),
    )
