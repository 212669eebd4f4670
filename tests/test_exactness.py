"""The digits equal those of the PyTorch chain, pixel for pixel, for any weights and seed.

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

from export.charge import compute_charges
from pxdbg_runtime import Generator
from tests.checkpoints import FAMILY_NAMES, FIRST_CHECKPOINT, demonstration_export, first_export
from tests.tiny_models import TinyConvNet, TinyResNet, tiny_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from export.families.generator_module import GeneratorModule
    from pxdbg_runtime import Digits
    from pxdbg_runtime.model.graph_file import GraphFile

MIN_IDENTICAL: Final = 0.9999
MAX_CHARGE_DIFFERENCE_ADU: Final = 1
SHAPE: Final = (40, 250, 768)
SEED_OF_CHECKPOINT: Final = {FIRST_CHECKPOINT: -5, 2: -(2**63), 3: 2**40 + 17, 4: 2**63 - 1, 5: 0}
"""Seeds of the weights, and of their events."""
VXD_IDS: Final = [
    layer << 13 | ladder << 8 | sensor << 5
    for layer, n_ladders in ((1, 8), (2, 12))
    for ladder in range(1, n_ladders + 1)
    for sensor in (1, 2)
]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_event_of_a_tiny_model_has_the_digits_of_pytorch(family: str, tmp_path: Path) -> None:
    tiny = tiny_of(TinyConvNet, 1) if family == "convnet" else tiny_of(TinyResNet, 2)
    compare_with_pytorch(tiny.model, tiny.export(tmp_path), seed=-5, n_events=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_images_of_the_first_sensors_have_the_digits_of_pytorch(family: str) -> None:
    export = first_export(family)
    compare_with_pytorch(export.model, export.graph, seed=SEED_OF_CHECKPOINT[FIRST_CHECKPOINT], n_events=1, n_images=10)


@pytest.mark.exhaustive
@pytest.mark.parametrize("checkpoint", SEED_OF_CHECKPOINT)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_digits_are_those_of_pytorch(
    family: str, checkpoint: int, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        export = demonstration_export(Path(folder), family, checkpoint)
        found = compare_with_pytorch(export.model, export.graph, seed=SEED_OF_CHECKPOINT[checkpoint], n_events=3)
    summary = f"{family}, weights {checkpoint}, {found}"
    print(summary)  # noqa: T201
    record_property("exactness", summary)


def compare_with_pytorch(
    model: GeneratorModule, graph: GraphFile, *, seed: int, n_events: int, n_images: int = SHAPE[0]
) -> str:
    """Check that a graph gives the digits of its model's first sensors; return a summary."""
    generator = Generator(graph.path, seed=seed, random_stream="torch", provider="cpu", nintra=2)
    n_identical, n_union, n_hits, largest = 0, 0, 0, 0
    for event, expected in enumerate(pytorch_events(model, seed, n_events, n_images)):
        digits = generator.generate(event)
        keys, expected_keys = keys_of_digits(digits), keys_of_charges(expected)
        assert np.all(np.diff(keys) > 0), "the digits must be ordered by sensor, u, v"
        found_keys = keys[keys < n_images * SHAPE[1] * SHAPE[2] * 256]  # sensors come first
        n_common = len(np.intersect1d(found_keys, expected_keys, assume_unique=True))
        n_identical += n_common
        n_union += len(found_keys) + len(expected_keys) - n_common
        n_hits += len(expected_keys)
        difference = charges_of_digits(digits)[:n_images].astype(np.int16) - expected
        largest = max(largest, int(np.abs(difference).max()))
    share = n_identical / n_union
    assert n_hits > n_events * n_images * 2500, "too few hits for the comparison to say anything"
    assert share >= MIN_IDENTICAL
    assert largest <= MAX_CHARGE_DIFFERENCE_ADU
    return (
        f"seed {seed}, {n_events} events: {n_hits} digits, {n_union - n_identical} not shared, "
        f"identical {100 * share:.5f} %, largest difference {largest} ADU"
    )


def pytorch_events(
    model: GeneratorModule, seed: int, n_events: int, n_images: int = SHAPE[0]
) -> Iterator[NDArray[np.uint8]]:
    """Yield the charges of one event after the other, uint8 (n_images, 250, 768), computed as in the original."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        latents = [torch.randn(40, 96) for _ in range(n_events)]
    for latent in latents:
        with torch.inference_mode():
            charges: NDArray[np.uint8] = compute_charges(model(latent[:n_images])).numpy()
        assert charges.shape == (n_images, *SHAPE[1:])
        yield charges


def keys_of_charges(charges: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Pack (sensor, u, v, charge) of each hit in one integer; they ascend in the order of sensor, u, v."""
    sensor, u_cell, v_cell = np.nonzero(charges)
    return pack_keys(sensor, u_cell, v_cell, charges[sensor, u_cell, v_cell])


def keys_of_digits(digits: Digits) -> NDArray[np.int64]:
    return pack_keys(sensors_of(digits), digits.u_cell, digits.v_cell, digits.charge)


def pack_keys(
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
