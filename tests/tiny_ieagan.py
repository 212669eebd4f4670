"""IEA-GAN with a sixteenth of its channels or less, in both variants: the family, random models, and exports."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from export import random_weights
from export.families.ieagan import FAMILY, IeaGan, IeaGanWithEventNoise
from export.random_weights import HitStatistics, build_random_model
from tests.checkpoints import Export, export_model, register_family
from tests.made_once import make_once

if TYPE_CHECKING:
    from pathlib import Path

    from export.families import Family
    from export.families.generator_module import GeneratorModule

TINY_STAGES: Final = ((32, 32), (32, 16), (16, 16), (16, 8), (8, 8), (8, 4))
_BUSY_BEYOND_CUT: Final = HitStatistics(occupancy=0.1, mean_charge=20)
"""Many hits, of which enough are beyond the cut."""


class TinyIeaGan(IeaGan):
    """As basf2's variant, with few channels."""

    stages: ClassVar[tuple[tuple[int, int], ...]] = TINY_STAGES


class TinyIeaGanWithEventNoise(IeaGanWithEventNoise):
    """As the published variant, with few channels."""

    stages: ClassVar[tuple[tuple[int, int], ...]] = TINY_STAGES


TINY: Final = dataclasses.replace(
    FAMILY,
    name="tiny",
    module_class=TinyIeaGan,
    variants=(dataclasses.replace(FAMILY.variants[0], name="tiny", module_class=TinyIeaGanWithEventNoise),),
)
TINY_VARIANTS: Final = TINY.list_variants()


@functools.cache
def tiny_ieagan(variant: int, seed: int) -> GeneratorModule:
    """Make a tiny random model of a variant, once: do not change it. Its statistics are measured on few images."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(random_weights, "_STATISTICS_BATCHES", 2)
        return build_random_model(TINY_VARIANTS[variant], seed, _BUSY_BEYOND_CUT)


@functools.cache
def export_tiny_ieagan(variant: int, seed: int) -> Export:
    """Export a tiny random model of a variant in float32, once in a run of the tests."""

    def make(folder: Path) -> Export:
        with pytest.MonkeyPatch.context() as patched:
            register_family(patched, TINY.name, TINY)
            return export_model(folder, TINY.name, tiny_ieagan(variant, seed), f"tiny-{variant}-{seed}")

    return make_once(f"tiny-ieagan-{variant}-{seed}", make)


def describe_variant(family: Family) -> str:
    """Name a variant in the identifier of a test."""
    return family.module_class.__name__
