"""Occupancy and mean charge, against NumPy on the images of each event."""

from __future__ import annotations

import numpy as np
import pytest

from pxdbg_runtime import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Digits
from pxdbg_runtime.plots.summary import GEANT4_OCCUPANCIES, PartSummary, SummaryCounter
from tests.digit_files import digits_of, random_digits, summarise


def plain_summary(images: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]) -> tuple[PartSummary, ...]:
    """Summarise the forty images of each event; the first sixteen are those of layer 1."""
    stack = np.stack(images)
    parts = {"layer 1": stack[:, :16], "layer 2": stack[:, 16:], "both layers": stack}
    return tuple(
        PartSummary(
            part=name,
            digits_per_event=np.count_nonzero(part) / len(images),
            occupancy=float((part > 0).mean()),
            mean_charge=float(part[part > 0].mean()) if part.any() else None,
        )
        for name, part in parts.items()
    )


def require_same(found: tuple[PartSummary, ...], expected: tuple[PartSummary, ...]) -> None:
    assert [each.part for each in found] == [each.part for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.digits_per_event == pytest.approx(other.digits_per_event, rel=1e-12)
        assert one.occupancy == pytest.approx(other.occupancy, rel=1e-12)
        if other.mean_charge is None:
            assert one.mean_charge is None
        else:
            assert one.mean_charge == pytest.approx(other.mean_charge, rel=1e-12)


def test_layers_are_sixteen_and_twenty_four_sensors() -> None:
    assert [sensor.layer for sensor in SENSORS] == [1] * 16 + [2] * 24


@pytest.mark.parametrize("hits_of_event", [[40_000], [1], [5_000, 0, 20_000], [0, 0, 3], [0]])
def test_against_images(hits_of_event: list[int]) -> None:
    rng = np.random.default_rng(len(hits_of_event))
    parts = [random_digits(rng, n_hits, event) for event, n_hits in enumerate(hits_of_event, 7)]
    found = summarise(Digits.concatenate(parts), len(parts))
    require_same(found, plain_summary([part.to_images() for part in parts]))


@pytest.mark.parametrize("hits_of_event", [[40_000], [1], [5_000, 0, 20_000], [0]])
def test_sensors_against_images(hits_of_event: list[int]) -> None:
    rng = np.random.default_rng(len(hits_of_event))
    parts = [random_digits(rng, n_hits, event) for event, n_hits in enumerate(hits_of_event, 7)]
    counter = SummaryCounter()
    for part in parts:  # block by block
        counter.add(part)
    images = np.stack([part.to_images() for part in parts])
    expected = tuple(
        PartSummary(
            part=str(sensor),
            digits_per_event=np.count_nonzero(image) / len(parts),
            occupancy=float((image > 0).mean()),
            mean_charge=float(image[image > 0].mean()) if image.any() else None,
        )
        for sensor, image in zip(SENSORS, images.swapaxes(0, 1), strict=True)
    )
    require_same(counter.summarise_sensors(len(parts)), expected)


def test_by_hand() -> None:
    digits = digits_of([(0, 8480, 0, 0, 10), (0, 8480, 0, 1, 21), (2, 16672, 249, 767, 5)])
    first, second, both = summarise(digits, 4)
    assert first == PartSummary(part="layer 1", digits_per_event=0.5, occupancy=0.5 / (16 * 192_000), mean_charge=15.5)
    assert second == PartSummary(
        part="layer 2", digits_per_event=0.25, occupancy=0.25 / (24 * 192_000), mean_charge=5.0
    )
    assert both == PartSummary(
        part="both layers", digits_per_event=0.75, occupancy=0.75 / (40 * 192_000), mean_charge=12.0
    )


def test_every_pixel_hit_is_occupancy_1() -> None:
    charge = np.full((N_SENSORS, N_U_CELLS, N_V_CELLS), 255, dtype=np.uint8)
    index, u_cell, v_cell = np.indices(charge.shape, dtype=np.uint16).reshape(3, -1)
    vxd_ids = np.array([sensor.vxd_id for sensor in SENSORS], dtype=np.uint16)
    digits = Digits(
        event=np.zeros(charge.size, dtype=np.int64),
        sensor_id=vxd_ids[index],
        u_cell=u_cell,
        v_cell=v_cell,
        charge=charge.ravel(),
    )
    assert [(part.occupancy, part.mean_charge) for part in summarise(digits, 1)] == [(1.0, 255.0)] * 3


@pytest.mark.parametrize("n_events", [1, 1000])
def test_no_digits(n_events: int) -> None:
    for part in summarise(Digits.empty(), n_events):
        assert (part.digits_per_event, part.occupancy, part.mean_charge) == (0.0, 0.0, None)


def test_the_real_sample_has_the_same_parts() -> None:
    assert list(GEANT4_OCCUPANCIES) == [part.part for part in summarise(Digits.empty(), 1)]
    weighted = (16 * GEANT4_OCCUPANCIES["layer 1"] + 24 * GEANT4_OCCUPANCIES["layer 2"]) / 40
    assert weighted == pytest.approx(GEANT4_OCCUPANCIES["both layers"], abs=5e-5)
