"""Makers of what the validation reads: digits with something in them, and files of marginals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from pxdbg_runtime import N_SENSORS, SENSORS, Digits
from tests.digit_files import PROVENANCE, write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


def digits_of_images(images: NDArray[np.uint8], event: int) -> Digits:
    """Make digits of the charges of forty sensors."""
    index, u_cell, v_cell = np.nonzero(images)
    vxd_ids = np.array([sensor.vxd_id for sensor in SENSORS], dtype=np.uint16)
    return Digits(
        event=np.full(len(index), event, dtype=np.int64),
        sensor_id=vxd_ids[index],
        u_cell=u_cell.astype(np.uint16),
        v_cell=v_cell.astype(np.uint16),
        charge=images[index, u_cell, v_cell],
    )


def write_events(path: Path, events: Iterable[Digits], *, first_event: int = 3, min_charge: int = 1) -> Path:
    """Write consecutive events."""
    listed = list(events)
    how = structs.replace(PROVENANCE, events=len(listed), first_event=first_event, min_charge=min_charge)
    return write(path, listed, how)


def marginals_object(*published: str) -> dict[str, object]:
    """Make what a file of marginals holds: a falling spectrum, and steeper ones for the published samples."""
    names = ("geant4", *published)
    return {
        "source": "Made for a test: <nobody> & nothing.",
        "charge_bins": "counts of 7 to 255 ADU",
        "occupancy_bins": "200 equal bins from 0 to 0.02",
        "sensors": "40 values each",
        "samples": {name: _sample_object(20.0 / (1 + place)) for place, name in enumerate(names)},
    }


def write_marginals(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _sample_object(slope_adu: float) -> dict[str, object]:
    occupancy = np.zeros(200, dtype=int)
    occupancy[40:140] = 10
    return {
        "empty_pixels": 1000,
        "charge_counts": np.rint(1e5 * np.exp(-np.arange(249) / slope_adu)).astype(int).tolist(),
        "occupancy_counts": occupancy.tolist(),
        "occupancy_overflow": 3,
        "sensor_mean_occupancy": [0.009] * N_SENSORS,
        "sensor_mean_charge": [22.0] * N_SENSORS,
    }
