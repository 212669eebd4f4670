"""The claim: the digits are those of the PyTorch chain, pixel for pixel, whatever the weights and the seed.

The chain is written out here from its definition: latents from PyTorch's generator, forty images at once,
charges, then the hits in the order of sensor, u, v. Nothing of pxdbg_runtime's digitisation takes part.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch

from export.charge import charges_of
from pxdbg_runtime import Generator
from tests.checkpoints import FAMILY_NAMES, FIRST_CHECKPOINT, demonstration_export, first_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from export.models import GeneratorModule
    from pxdbg_runtime import Digits

MIN_IDENTICAL: Final = 0.9999
MAX_CHARGE_DIFFERENCE_ADU: Final = 1
SHAPE: Final = (40, 250, 768)
SEED_OF_CHECKPOINT: Final = {FIRST_CHECKPOINT: -5, 2: -(2**63), 3: 2**40 + 17, 4: 2**63 - 1, 5: 0}
"""Seeds of the weights, and of the events made with them."""
VXD_IDS: Final = [
    layer << 13 | ladder << 8 | sensor << 5
    for layer, n_ladders in ((1, 8), (2, 12))
    for ladder in range(1, n_ladders + 1)
    for sensor in (1, 2)
]


def cases() -> Iterator[object]:
    for family in FAMILY_NAMES:
        yield pytest.param(family, FIRST_CHECKPOINT, 1, marks=pytest.mark.slow, id=f"{family}-one-event")
        for checkpoint in SEED_OF_CHECKPOINT:
            yield pytest.param(family, checkpoint, 3, marks=pytest.mark.exhaustive, id=f"{family}-{checkpoint}")


@pytest.mark.parametrize(("family", "checkpoint", "n_events"), list(cases()))
def test_digits_are_those_of_pytorch(
    family: str,
    checkpoint: int,
    n_events: int,
    record_property: Callable[[str, object], None],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        quick = n_events == 1
        export = first_export(family) if quick else demonstration_export(Path(folder), family, checkpoint)
        seed = SEED_OF_CHECKPOINT[checkpoint]
        generator = Generator(export.graph.path, seed=seed, random_stream="torch", provider="cpu", nintra=2)
        n_identical, n_union, n_hits, largest = 0, 0, 0, 0
        for event, expected in enumerate(pytorch_events(export.model, seed, n_events)):
            digits = generator.generate(event)
            found_keys, expected_keys = keys_of_digits(digits), keys_of_charges(expected)
            assert np.all(np.diff(found_keys) > 0), "the digits must be ordered by sensor, u, v"
            n_common = len(np.intersect1d(found_keys, expected_keys, assume_unique=True))
            n_identical += n_common
            n_union += len(found_keys) + len(expected_keys) - n_common
            n_hits += len(expected_keys)
            difference = charges_of_digits(digits).astype(np.int16) - expected
            largest = max(largest, int(np.abs(difference).max()))
    share = n_identical / n_union
    summary = (
        f"{family}, weights {checkpoint}, seed {seed}, {n_events} events: {n_hits} digits, "
        f"{n_union - n_identical} not shared, identical {100 * share:.5f} %, largest difference {largest} ADU"
    )
    print(summary)  # noqa: T201
    record_property("exactness", summary)
    assert n_hits > n_events * 100_000, "too few hits for the comparison to say anything"
    assert share >= MIN_IDENTICAL
    assert largest <= MAX_CHARGE_DIFFERENCE_ADU


def pytorch_events(model: GeneratorModule, seed: int, n_events: int) -> Iterator[NDArray[np.uint8]]:
    """Give the charges of event after event, uint8 (40, 250, 768), as the original makes them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        latents = [torch.randn(40, 96) for _ in range(n_events)]
    for latent in latents:
        with torch.inference_mode():
            charges: NDArray[np.uint8] = charges_of(model(latent)).numpy()
        assert charges.shape == SHAPE
        yield charges


def keys_of_charges(charges: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pack (sensor, u, v, charge) of each hit in one integer; they ascend in the order of sensor, u, v."""
    sensor, u_cell, v_cell = np.nonzero(charges)
    return packed(sensor, u_cell, v_cell, charges[sensor, u_cell, v_cell])


def keys_of_digits(digits: Digits) -> NDArray[np.int64]:
    return packed(sensors_of(digits), digits.u_cell, digits.v_cell, digits.charge)


def packed(
    sensor: NDArray[np.int64],
    u_cell: NDArray[np.unsignedinteger] | NDArray[np.int64],
    v_cell: NDArray[np.unsignedinteger] | NDArray[np.int64],
    charge: NDArray[np.uint8],
) -> NDArray[np.int64]:
    pixel = (sensor * SHAPE[1] + u_cell.astype(np.int64)) * SHAPE[2] + v_cell.astype(np.int64)
    return pixel * 256 + charge


def charges_of_digits(digits: Digits) -> NDArray[np.uint8]:
    charges = np.zeros(SHAPE, dtype=np.uint8)
    charges[sensors_of(digits), digits.u_cell, digits.v_cell] = digits.charge
    return charges


def sensors_of(digits: Digits) -> NDArray[np.int64]:
    """Indices, 0 to 39, of the digits' sensors."""
    index_of = np.full(1 << 16, -1, dtype=np.int64)
    index_of[VXD_IDS] = np.arange(len(VXD_IDS))
    index = index_of[digits.sensor_id]
    assert np.all(index >= 0)
    return index
