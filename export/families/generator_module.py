"""The common parts of the PyTorch modules: base class, image size, inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import torch
from torch import Tensor, nn

from pxdbg_runtime.model.card import Draw, GraphInput
from pxdbg_runtime.sensors import N_SENSORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from export.families.family import Family

__all__ = [
    "LATENT_DRAW",
    "LATENT_INPUT",
    "LATENT_SIZE",
    "ROWS_CROPPED_AT_EACH_END",
    "SEED_HEIGHT",
    "SEED_WIDTH",
    "GeneratorModule",
    "draw_inputs",
]

LATENT_SIZE: Final = 96
"""Standard normal values of one image, in families without conditions."""
LATENT_DRAW: Final = Draw(name="latent", shape=(N_SENSORS, LATENT_SIZE))
LATENT_INPUT: Final = GraphInput(name="latent", role="latent", draw=LATENT_DRAW.name)
SEED_HEIGHT: Final = 8
SEED_WIDTH: Final = 24
"""Size of the first feature map; five upsamplings by 2 make it 256 x 768."""
ROWS_CROPPED_AT_EACH_END: Final = 3
"""Of the 256 generated rows, 3 to 252 are the 250 u cells."""


def _raise_not_implemented(self: GeneratorModule, *_: Tensor) -> Tensor:
    message = f"{type(self).__name__} must define full_image."
    raise NotImplementedError(message)


class GeneratorModule(nn.Module):
    """A generator of sensor images.

    Subclasses define `full_image`, which computes the uncropped image, float32 (n, 1, 256, 768) in [-1, 1], from the
    inputs of the family.
    """

    full_image: Callable[..., Tensor] = _raise_not_implemented

    def fold(self) -> Self:
        """Fold what is constant in inference into the weights, in place, for the export; return the module itself."""
        return self

    @torch.no_grad()
    def scale_output(self, factor: float, offset: float) -> None:
        """Multiply the values before the tanh by a factor and add an offset, by the weights of the last convolution.

        Raises
        ------
        ValueError
            If it has no bias, to which the offset would be added.
        """
        last = [module for module in self.modules() if isinstance(module, nn.Conv2d)][-1]
        if last.bias is None and offset:
            message = f"the last convolution of {type(self).__name__} has no bias: no offset can be added"
            raise ValueError(message)
        last.weight *= factor
        if last.bias is not None:
            last.bias *= factor
            last.bias += offset

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the images, float32 (n, 250, 768) in [-1, 1]."""
        full = self.full_image(*inputs)
        return full[:, 0, ROWS_CROPPED_AT_EACH_END:-ROWS_CROPPED_AT_EACH_END, :]


def draw_inputs(
    family: Family, n_images: int = N_SENSORS, generator: torch.Generator | None = None
) -> tuple[Tensor, ...]:
    """Draw a module's inputs for the first images of an event as the original does: one ``torch.randn`` for each draw.

    Parameters
    ----------
    family : Family
    n_images : int
        At most 40. Draws that the whole event shares keep their forty rows.
    generator : torch.Generator, optional
        PyTorch's default generator on the CPU if None.
    """
    whole = {each.draw for each in family.inputs if each.role == "event_latent"}
    draws = {
        each.name: torch.randn(
            N_SENSORS if each.name in whole else n_images, each.shape[1], generator=generator
        ).numpy()
        for each in family.draws
    }
    return tuple(torch.from_numpy(each) for each in family.build_feed(draws, range(n_images)).values())
