"""Inputs of a generator: those that the original draws for its PyTorch model, and those of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pxdbg_runtime.model.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor


def draw_original_inputs(family: str, n_images: int) -> tuple[Tensor, ...]:
    """Draw the inputs of the PyTorch model as the original does."""
    from export.families import load_family
    from export.families.generator_module import draw_inputs

    return draw_inputs(load_family(family), n_images)


def feed_for(
    card: ModelCard, draws: Mapping[str, NDArray[np.float32]], sensors: range
) -> dict[str, NDArray[np.float32]]:
    """Select the inputs of consecutive sensors from the draws of an event, by the names of the graph's inputs."""
    return {each.name: draws[str(each.draw)][sensors.start : sensors.stop] for each in card.inputs}
