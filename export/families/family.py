"""What a family of generators declares about itself; export and benchmarks go by it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pxdbg_runtime.model.card import Feed, build_feed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from export.families.generator_module import GeneratorModule
    from pxdbg_runtime.model.card import Draw, GraphInput

__all__ = ["Family", "Feed"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of generators.

    Attributes
    ----------
    name : str
        Name of the family in the model card.
    module_class : type of GeneratorModule
        Architecture. The keys and shapes of its state dict are those of the family's checkpoints, which are recognised
        by them. It is called with one tensor for each input, in order.
    draws : tuple of Draw
        Standard normal values of an event, in the order in which the original draws them.
    inputs : tuple of GraphInput
        Inputs of the module and of the graph. The batch is dynamic, except for the role ``event_latent``.
    cut : float or None
        Outputs not greater than this are empty.
    min_charge : int
        Smallest charge of a hit in the original, ADU.
    variants : tuple of Family
        Other variants of the architecture, of the same name. Their checkpoints have other keys.
    """

    name: str
    module_class: type[GeneratorModule]
    draws: tuple[Draw, ...]
    inputs: tuple[GraphInput, ...]
    cut: float | None
    min_charge: int
    variants: tuple[Family, ...] = ()

    @property
    def latent_size(self) -> int:
        """Standard normal values of one image."""
        (draw,) = (each.draw for each in self.inputs if each.role == "latent")
        return next(each.shape[1] for each in self.draws if each.name == draw)

    def list_variants(self) -> tuple[Family, ...]:
        """List the family itself and its other variants."""
        return (self, *self.variants)

    def find_variant(self, model: GeneratorModule) -> Family:
        """Find the variant of a model."""
        return next(each for each in self.list_variants() if type(model) is each.module_class)

    def build_feed(self, draws: Mapping[str, NDArray[np.float32]], sensors: range) -> Feed:
        """Build the inputs for some sensors of one event, as `pxdbg_runtime.model.card.build_feed` does."""
        return build_feed(self.inputs, draws, sensors)
