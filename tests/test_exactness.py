"""The digits equal those of the PyTorch chain, pixel for pixel, for any weights and seed.

The chain is written out here from its definition: values from PyTorch's generator, the images of the model as it is in
float32, charges, then the hits in the order of sensor, u, v. Nothing of pxdbg_runtime's digitisation takes part.

PyTorch's own float32 images are not exact. Those of conditional families are less so: their digits must be identical at
least as often as those of PyTorch in float32 and in float64 are, measured on every fourth sensor of large models.
"""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pytest
import torch

from export.charge import compute_charges
from export.families import FAMILIES, load_family
from pxdbg_runtime import SENSORS, Generator
from tests.checkpoints import FAMILY_NAMES, FIRST_CHECKPOINT, demonstration_export, export_first
from tests.tiny_ieagan import TINY_VARIANTS, describe_variant, export_tiny_ieagan
from tests.tiny_models import TinyConvNet, TinyResNet, tiny_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from export.families import Family
    from export.families.generator_module import GeneratorModule
    from pxdbg_runtime import Digits
    from pxdbg_runtime.model.graph_file import GraphFile

MIN_IDENTICAL: Final = 0.9999
"""Of families with latents alone."""
MAX_CHARGE_DIFFERENCE_ADU: Final = 1
MIN_HITS: Final = 2500
MIN_CONDITIONAL_HITS: Final = 250
"""An image must have more on average. Random weights of a ResNet or ConvNet give thousands, one of IEA-GAN 221."""
SHAPE: Final = (40, 250, 768)
BATCH_SIZE: Final = 10
EXACT_BATCH_SIZE: Final = 4
"""In float64, whose images take twice the memory."""
EXACT_SENSORS: Final = slice(None, None, 4)
SEED_OF_CHECKPOINT: Final = {FIRST_CHECKPOINT: -5, 2: -(2**63), 3: 2**40 + 17, 4: 2**63 - 1, 5: 0}
"""Seeds of the weights, and of their events."""
ARCHITECTURES: Final = tuple(variant for name in FAMILIES for variant in load_family(name).list_variants())
VXD_IDS: Final = [
    layer << 13 | ladder << 8 | sensor << 5
    for layer, n_ladders in ((1, 8), (2, 12))
    for ladder in range(1, n_ladders + 1)
    for sensor in (1, 2)
]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_an_event_of_a_tiny_model_has_the_digits_of_pytorch(family: str, tmp_path: Path) -> None:
    tiny = tiny_of(TinyConvNet, 1) if family == "convnet" else tiny_of(TinyResNet, 2)
    graph = tiny.export(tmp_path)
    compare_with_pytorch(load_family(family), tiny.model, graph, seed=-5, n_events=1, with_float64=False)


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)
def test_events_of_a_tiny_conditional_model_have_the_digits_of_pytorch(family: Family) -> None:
    export = export_tiny_ieagan(TINY_VARIANTS.index(family), 1)
    every = slice(None)
    compare_with_pytorch(family, export.model, export.graph, seed=-5, n_events=2, n_images=12, exact_sensors=every)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_images_of_the_first_sensors_have_the_digits_of_pytorch(family: str) -> None:
    export = export_first(family)
    compare_with_pytorch(
        load_family(family),
        export.model,
        export.graph,
        seed=SEED_OF_CHECKPOINT[FIRST_CHECKPOINT],
        n_events=1,
        n_images=10,
        with_float64=False,
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("checkpoint", SEED_OF_CHECKPOINT)
@pytest.mark.parametrize("family", ARCHITECTURES, ids=describe_variant)
def test_digits_are_those_of_pytorch(
    family: Family, checkpoint: int, record_property: Callable[[str, object], None]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        export = demonstration_export(Path(folder), family, checkpoint)
        found = compare_with_pytorch(
            family, export.model, export.graph, seed=SEED_OF_CHECKPOINT[checkpoint], n_events=3
        )
    summary = f"{describe_variant(family)}, weights {checkpoint}, {found}"
    print(summary)  # noqa: T201
    record_property("exactness", summary)


def compare_with_pytorch(
    family: Family,
    model: GeneratorModule,
    graph: GraphFile,
    *,
    seed: int,
    n_events: int,
    n_images: int = SHAPE[0],
    with_float64: bool = True,
    exact_sensors: slice = EXACT_SENSORS,
) -> str:
    """Check that a graph gives the digits of its model's first sensors; return a summary.

    While there are too few hits for the comparison to say anything, up to as many more events are compared. Families
    with latents alone are compared with PyTorch in float64 for the summary only.
    """
    sensors = range(n_images)[exact_sensors]
    generator = Generator(graph.path, seed=seed, random_stream="torch", provider="cpu", nintra=2)
    exact_model = copy.deepcopy(model).double()
    whole, ours, pytorch = Agreement(), Agreement(), Agreement()
    largest = n_compared = 0
    min_hits = n_events * n_images * (MIN_HITS if family.name in FAMILY_NAMES else MIN_CONDITIONAL_HITS)
    for event, draws in enumerate(draw_events(family, seed, 2 * n_events)):
        if event >= n_events and whole.n_hits > min_hits:
            break
        n_compared = event + 1
        expected = compute_original_charges(family, model, draws, range(n_images))
        digits = generator.generate(event, SENSORS[:n_images])
        assert np.all(np.diff(keys_of_digits(digits)) > 0), "the digits must be ordered by sensor, u, v"
        found = charges_of_digits(digits)[:n_images]
        whole.add(found, expected)
        largest = max(largest, find_largest_difference(family, found, expected))
        if not with_float64:
            continue
        exact = compute_original_charges(family, exact_model, draws, sensors, EXACT_BATCH_SIZE)
        ours.add(found[exact_sensors], expected[exact_sensors])
        pytorch.add(expected[exact_sensors], exact)
    assert whole.n_hits > min_hits, "too few hits for the comparison to say anything"
    summary = f"seed {seed}, {n_compared} events: {whole}, largest difference {largest} ADU"
    if with_float64:
        summary += f"; on {len(sensors)} sensors {ours}, PyTorch against float64 {pytorch}"
    if family.name in FAMILY_NAMES:
        assert whole.share >= MIN_IDENTICAL, summary
    else:
        assert with_float64
        assert ours.n_different <= pytorch.n_different, summary
    assert largest <= MAX_CHARGE_DIFFERENCE_ADU, summary
    return summary


@dataclass
class Agreement:
    """Counts the pixels with a hit in either of two sets of charges, and those that differ."""

    n_hits: int = 0
    n_different: int = 0

    def add(self, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
        self.n_hits += int(((first > 0) | (second > 0)).sum())
        self.n_different += int((first != second).sum())

    @property
    def share(self) -> float:
        return 1 - self.n_different / self.n_hits

    def __str__(self) -> str:
        return f"{self.n_hits} digits, {self.n_different} differ, identical {100 * self.share:.5f} %"


def find_largest_difference(family: Family, found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> int:
    """Find the largest difference of charges, pixels at the cut aside, which may have its charge or nothing."""
    difference = np.abs(found.astype(np.int16) - expected)
    if family.cut is not None:
        above = np.nextafter(np.float32(family.cut), np.float32(1))
        (charge,) = compute_charges(torch.from_numpy(np.array([above]))).tolist()
        difference[(np.minimum(found, expected) == 0) & (np.maximum(found, expected) == charge)] = 0
    return int(difference.max())


def draw_events(family: Family, seed: int, n_events: int) -> list[dict[str, NDArray[np.float32]]]:
    """Draw the values of one event after the other as the original does, by the names of the draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [{each.name: torch.randn(*each.shape).numpy() for each in family.draws} for _ in range(n_events)]


def compute_original_charges(
    family: Family,
    model: GeneratorModule,
    draws: dict[str, NDArray[np.float32]],
    sensors: range,
    batch_size: int = BATCH_SIZE,
) -> NDArray[np.uint8]:
    """Compute the charges of some sensors, uint8 (n, 250, 768), as in the original."""
    dtype = next(model.parameters()).dtype
    charges = []
    for start in range(0, len(sensors), batch_size):
        feed = family.build_feed(draws, sensors[start : start + batch_size])
        inputs = [torch.from_numpy(each) for each in feed.values()]
        with torch.inference_mode():
            images = model(*(each.to(dtype) if each.is_floating_point() else each for each in inputs))
        charges.append(compute_charges(images, family.cut).numpy())
    computed: NDArray[np.uint8] = np.concatenate(charges)
    assert computed.shape == (len(sensors), *SHAPE[1:])
    return computed


def keys_of_digits(digits: Digits) -> NDArray[np.int64]:
    """Pack (sensor, u, v) of each digit in one integer; they ascend in the order of sensor, u, v."""
    return (sensors_of(digits) * SHAPE[1] + digits.u_cell.astype(np.int64)) * SHAPE[2] + digits.v_cell.astype(np.int64)


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
