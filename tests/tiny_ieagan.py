"""IEA-GAN with a sixteenth of its channels or less, in both variants: the family, random models, and exports."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from export import random_weights
from export.families import ieagan
from export.families.ieagan import FAMILY, IeaGan, IeaGanWithEventNoise
from export.random_weights import HitStatistics, build_random_model
from tests.checkpoints import Export, export_model, register_family

if TYPE_CHECKING:
    from pathlib import Path

    from export.families import Family

TINY_STAGES: Final = ((32, 32), (32, 16), (16, 16), (16, 8), (8, 8), (8, 4))
SHORT_STAGES: Final = ((16, 16), (16, 8), (8, 4))
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


def shorten(patched: pytest.MonkeyPatch) -> None:
    """Let the tiny models begin with a larger feature map, so that half of the stages make an image of it.

    PyTorch's exporter takes most of the time of an export, and as long for each stage.
    """
    patched.setattr(ieagan, "SEED_HEIGHT", ieagan.SEED_HEIGHT << 3)
    patched.setattr(ieagan, "SEED_WIDTH", ieagan.SEED_WIDTH << 3)
    for variant in TINY_VARIANTS:
        patched.setattr(variant.module_class, "stages", SHORT_STAGES)


def export_tiny_ieagan(folder: Path, variant: Family, seed: int) -> Export:
    """Export a tiny random model of a variant in float32. Its statistics are measured on few images."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(random_weights, "_STATISTICS_BATCHES", 2)
        register_family(patched, TINY.name, TINY)
        return export_model(folder, TINY.name, build_random_model(variant, seed, _BUSY_BEYOND_CUT), f"tiny-{seed}")


def describe_variant(family: Family) -> str:
    """Name a variant in the identifier of a test."""
    return family.module_class.__name__
