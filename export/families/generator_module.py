"""What the generators have in common: a latent in, a cropped image of tanh values out."""

from __future__ import annotations

from typing import ClassVar, Final

from torch import Tensor, nn

LATENT_SIZE: Final = 96
"""Standard normal values an image."""
SEED_HEIGHT: Final = 8
SEED_WIDTH: Final = 24
"""Size of the first feature map; five doublings make it 256 x 768."""
ROWS_CROPPED_AT_EACH_END: Final = 3
"""Of the 256 generated rows, 3..252 are the 250 u cells."""


class GeneratorModule(nn.Module):
    """A generator of sensor images.

    Subclasses compute the full image, shape (n, 1, 256, 768), in `full_image`.
    """

    family: ClassVar[str]

    def full_image(self, latent: Tensor) -> Tensor:
        """Compute the uncropped image, float32 (n, 1, 256, 768) in [-1, 1], from a latent (n, 96)."""
        message = f"{type(self).__name__} does not say how it makes an image."
        raise NotImplementedError(message)

    def forward(self, latent: Tensor) -> Tensor:
        """Compute the images, float32 (n, 250, 768) in [-1, 1], from a latent (n, 96)."""
        full = self.full_image(latent)
        return full[:, 0, ROWS_CROPPED_AT_EACH_END:-ROWS_CROPPED_AT_EACH_END, :]
