"""IEA-GAN with a sixteenth of its channels or less, in both variants: models, families and exports."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, ClassVar, Final

import pytest

from export.families import load_family
from export.families.ieagan import IeaGan, IeaGanWithEventNoise
from export.random_weights import build_random_model
from tests.checkpoints import BUSY, Export, export_model, register_family

if TYPE_CHECKING:
    from pathlib import Path

    from export.families import Family
    from export.families.generator_module import GeneratorModule

TINY_STAGES: Final = ((32, 32), (32, 16), (16, 16), (16, 8), (8, 8), (8, 4))
VARIANTS: Final = ("sensors", "event noise")


class TinyIeaGan(IeaGan):
    """As basf2's variant, with few channels."""

    stages: ClassVar[tuple[tuple[int, int], ...]] = TINY_STAGES


class TinyIeaGanWithEventNoise(IeaGanWithEventNoise):
    """As the published variant, with few channels."""

    stages: ClassVar[tuple[tuple[int, int], ...]] = TINY_STAGES


def variant_family(variant: str) -> Family:
    """Give the description of a variant of the true size."""
    return load_family("ieagan").list_variants()[VARIANTS.index(variant)]


def tiny_family(variant: str) -> Family:
    """Give the description of a tiny variant, which is alone in its family."""
    kind = TinyIeaGan if variant == "sensors" else TinyIeaGanWithEventNoise
    return dataclasses.replace(variant_family(variant), name="tiny", module_class=kind, variants=())


@functools.cache
def tiny_ieagan(variant: str, seed: int) -> GeneratorModule:
    """Make a tiny random model, once: do not change it."""
    return build_random_model(tiny_family(variant), seed, BUSY)


def export_tiny_ieagan(folder: Path, variant: str, seed: int) -> Export:
    """Export a tiny random model in float32."""
    with pytest.MonkeyPatch.context() as patched:
        register_family(patched, "tiny", tiny_family(variant))
        return export_model(folder, "tiny", tiny_ieagan(variant, seed), f"tiny-{seed}")
