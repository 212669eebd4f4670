"""Simulate events of forty sensors as digits.

An event depends on the seed and its number alone, so that events can be simulated in any order.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np

from artifacts.standins.simulation import (
    RAW_THRESHOLD,
    build_charge_table,
    draw_occupancies,
    map_charges,
    simulate_raw_charges,
)
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.formats.provenance import Provenance
from pxdbg_runtime.sensors import READOUT_THRESHOLD_ADU, SENSORS, Sensor
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["describe_simulation", "simulate_events"]

_PROVENANCE: Final = (
    "Simulated clusters, tuned to the public Geant4 marginals of the PXD background by the IEA-GAN authors: charge "
    "spectrum and occupancies are theirs, the shapes of the clusters are crude. Not the collaboration's simulation."
)


def describe_simulation(events: range, seed: int) -> Provenance:
    """Describe how the digits of simulated events were generated, for the header of a file."""
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


def simulate_events(events: range, seed: int, *, n_threads: int = 1) -> Iterator[Digits]:
    """Simulate events.

    Parameters
    ----------
    events : range
        Event numbers.
    seed : int
        Any signed 64-bit integer.
    n_threads : int
        Number of sensors to simulate at the same time; the digits do not depend on it.

    Yields
    ------
    Digits
        The digits of one event.
    """
    build_charge_table()  # cached: several threads that need it first would each build it
    with ThreadPoolExecutor(n_threads) as pool:
        for event in events:
            rng = np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, event], np.uint64)))
            occupancies = draw_occupancies(1, rng)[0].tolist()
            seeds = rng.integers(0, 2**32, len(SENSORS)).tolist()
            yield Digits.concatenate(pool.map(_simulate_sensor, [event] * len(SENSORS), SENSORS, occupancies, seeds))


def _simulate_sensor(event: int, sensor: Sensor, occupancy: float, seed: int) -> Digits:
    raw = simulate_raw_charges(occupancy, sensor.layer, seed)
    u_cell, v_cell = np.nonzero(raw >= RAW_THRESHOLD)
    return Digits(
        event=np.full(len(u_cell), event, np.int64),
        sensor_id=np.full(len(u_cell), sensor.vxd_id, np.uint16),
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=map_charges(raw[u_cell, v_cell]),
    )
