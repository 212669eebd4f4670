"""Inputs of a validation: images, files of digits and files of marginals."""

from __future__ import annotations

import json
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import structs

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.formats import open_events
from pxdbg_runtime.validation.sample import count_events
from tests.digit_files import PROVENANCE, write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.validation.sample import Sample


def create_images(*hits: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Create the images of forty sensors with hits: sensor index, u cell, v cell, charge."""
    images = np.zeros((N_SENSORS, N_U_CELLS, N_V_CELLS), dtype=np.uint8)
    for *pixel, charge in hits:
        images[tuple(pixel)] = charge
    return images


def build_digits(images: NDArray[np.uint8], event: int) -> Digits:
    """Convert the charges of forty sensors to digits."""
    index, u_cell, v_cell = np.unravel_index(np.flatnonzero(images != 0), images.shape)  # much faster than np.nonzero
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
    provenance = structs.replace(PROVENANCE, events=len(listed), first_event=first_event, min_charge=min_charge)
    return write(path, listed, provenance)


def count_file(path: Path, name: str, min_charge: int = 7) -> Sample:
    reader = open_events(path)
    return count_events(reader.read_events(), reader, name, min_charge)


def build_marginals_content(*published: str) -> dict[str, object]:
    """Content of a file of marginals: a falling spectrum, and steeper ones for the published samples."""
    names = ("geant4", *published)
    return {
        "source": "Made for a test: <nobody> & nothing.",
        "charge_bins": "counts of 7 to 255 ADU",
        "occupancy_bins": "200 equal bins from 0 to 0.02",
        "sensors": "40 values each",
        "samples": {name: _build_sample_content(20.0 / (1 + place)) for place, name in enumerate(names)},
    }


def write_marginals(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _build_sample_content(slope_adu: float) -> dict[str, Any]:
    occupancy = np.zeros(200, dtype=int)
    occupancy[40:140] = 10
    content = {
        "charge_counts": np.rint(1e5 * np.exp(-np.arange(249) / slope_adu)).astype(int).tolist(),
        "occupancy_counts": occupancy.tolist(),
        "occupancy_overflow": 3,
        "sensor_mean_occupancy": [0.009] * N_SENSORS,
        "sensor_mean_charge": [22.0] * N_SENSORS,
    }
    count_empty_pixels(content)
    return content


def count_empty_pixels(content: dict[str, Any]) -> None:
    """Set the empty pixels of a published sample to what its hits and its mean occupancy say."""
    content["empty_pixels"] = round(sum(content["charge_counts"]) * (1 / fmean(content["sensor_mean_occupancy"]) - 1))


def draw_digits(rng: np.random.Generator, event: int, *, hits: int, charge_adu: float, pair_share: float) -> Digits:
    """Draw an event of pairs and single pixels with exponential charges; sensors and pixels are random."""
    images = create_images()
    fluctuation = rng.normal(1, 0.03)  # common to the images of an event
    sensor, u_cell, v_cell = rng.integers(
        0, [[N_SENSORS], [N_U_CELLS // 3], [N_V_CELLS // 3]], (3, int(hits * N_SENSORS * fluctuation))
    )
    charges = np.minimum(7 + rng.exponential(charge_adu, len(sensor)), 255)
    images[sensor, 3 * u_cell, 3 * v_cell] = charges
    is_pair = rng.random(len(sensor)) < pair_share
    images[sensor[is_pair], 3 * u_cell[is_pair], 3 * v_cell[is_pair] + 1] = charges[is_pair]
    return build_digits(images, event)
