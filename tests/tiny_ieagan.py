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


class ShortIeaGan(TinyIeaGan):
    """As `TinyIeaGan`, with half of its stages, which make an image of a larger feature map."""

    stages: ClassVar[tuple[tuple[int, int], ...]] = SHORT_STAGES


class ShortIeaGanWithEventNoise(TinyIeaGanWithEventNoise):
    """As `TinyIeaGanWithEventNoise`, with half of its stages."""

    stages: ClassVar[tuple[tuple[int, int], ...]] = SHORT_STAGES


SHORT: Final = dataclasses.replace(
    TINY,
    module_class=ShortIeaGan,
    variants=(dataclasses.replace(TINY.variants[0], module_class=ShortIeaGanWithEventNoise),),
)
"""PyTorch's exporter takes most of the time of an export, and as long for each stage."""


def enlarge_seed(patched: pytest.MonkeyPatch) -> None:
    """Let IEA-GAN begin with the feature map that `SHORT` needs."""
    patched.setattr(ieagan, "SEED_HEIGHT", ieagan.SEED_HEIGHT << 3)
    patched.setattr(ieagan, "SEED_WIDTH", ieagan.SEED_WIDTH << 3)


def export_short_ieagan(folder: Path, variant: Family, seed: int) -> Export:
    """Export a random model of a variant of `SHORT` in float32. Its statistics are measured on few images."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(random_weights, "_STATISTICS_BATCHES", 2)
        register_family(patched, SHORT.name, SHORT)
        return export_model(folder, SHORT.name, build_random_model(variant, seed, _BUSY_BEYOND_CUT), f"short-{seed}")


def describe_variant(family: Family) -> str:
    """Name a variant in the identifier of a test."""
    return family.module_class.__name__
