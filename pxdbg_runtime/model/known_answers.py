"""Known answers: reference outputs of a few images, stored in the model card.

With them the runtime checks whether this release of ONNX Runtime computes a graph correctly on this machine: see
`pxdbg_runtime.inference.verification`. The latents of the images come from the Philox stream, so the card stores
outputs only.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import numpy as np

from pxdbg_runtime.checks import MAX_EVENT, MAX_SEED, MIN_SEED
from pxdbg_runtime.errors import CardError
from pxdbg_runtime.json_records import NonNegativeNumber, Record, Text
from pxdbg_runtime.sensors import N_SENSORS, PIXELS_PER_SENSOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KnownAnswers", "KnownImage", "OutputKind"]

OutputKind = Literal["values", "charges"]
_PIXEL_DTYPE: Final = np.dtype("<i4")
_OUTPUT_DTYPES: Final[dict[str, np.dtype[np.float32] | np.dtype[np.uint8]]] = {
    "values": np.dtype("<f4"),
    "charges": np.dtype("<u1"),
}


class KnownImage(Record, frozen=True, kw_only=True):
    """Reference outputs of some pixels of one image.

    Attributes
    ----------
    sensor : int
        Index of the sensor along the event axis, 0 to 39.
    pixels : str
        Base64 of little-endian int32: u cell times 768 plus v cell, ascending.
    outputs : str
        Base64 of the reference of each pixel: little-endian float32 tanh values, or uint8 charges in ADU.
    """

    sensor: Annotated[int, msgspec.Meta(ge=0, le=N_SENSORS - 1)]
    pixels: Text
    outputs: Text

    def decode_pixels(self) -> NDArray[np.int32]:
        """Decode the pixel numbers, shape (pixels,)."""
        return np.frombuffer(base64.b64decode(self.pixels, validate=True), _PIXEL_DTYPE).astype(np.int32)


class KnownAnswers(Record, frozen=True, kw_only=True):
    """Reference outputs of a graph, and the tolerances for a correct runtime.

    Attributes
    ----------
    compared : {"values", "charges"}
        ``values``: tanh values, computed in float64. ``charges``: charges in ADU, before zero suppression.
    seed, event : int
        Of the Philox stream that draws the latents.
    tolerance : float
        Largest difference allowed in any pixel, in the unit of what is compared; 0 is exact.
    mean_tolerance : float
        Largest mean of the absolute differences over the pixels of an image.
    images : tuple of KnownImage

    Raises
    ------
    CardError
        If the pixels of an image do not ascend, or their outputs do not match them.
    """

    compared: OutputKind
    seed: Annotated[int, msgspec.Meta(ge=MIN_SEED, le=MAX_SEED)]
    event: Annotated[int, msgspec.Meta(ge=0, le=MAX_EVENT)]
    tolerance: NonNegativeNumber
    mean_tolerance: NonNegativeNumber
    images: Annotated[tuple[KnownImage, ...], msgspec.Meta(min_length=1)]

    def __post_init__(self) -> None:
        for number, image in enumerate(self.images):
            self._check_image(image, f"known_answers.images[{number}]")

    def decode_outputs(self, image: KnownImage) -> NDArray[np.float64]:
        """Decode the reference outputs of one image, shape (pixels,)."""
        raw = base64.b64decode(image.outputs, validate=True)
        outputs: NDArray[np.generic] = np.frombuffer(raw, _OUTPUT_DTYPES[self.compared])
        return outputs.astype(np.float64)

    @staticmethod
    def encode_image(
        compared: OutputKind, sensor: int, pixels: NDArray[np.integer], outputs: NDArray[np.generic]
    ) -> KnownImage:
        """Encode the reference outputs of one image.

        Parameters
        ----------
        compared : {"values", "charges"}
        sensor : int
            Index along the event axis.
        pixels : ndarray of int, shape (pixels,)
            Ascending.
        outputs : ndarray, shape (pixels,)
            Tanh values, or charges in ADU.
        """
        return KnownImage(
            sensor=sensor,
            pixels=base64.b64encode(pixels.astype(_PIXEL_DTYPE).tobytes()).decode(),
            outputs=base64.b64encode(outputs.astype(_OUTPUT_DTYPES[compared]).tobytes()).decode(),
        )

    def _check_image(self, image: KnownImage, field: str) -> None:
        try:
            pixels, outputs = image.decode_pixels(), self.decode_outputs(image)
        except (binascii.Error, ValueError):
            raise CardError(field, f"{field} must hold pixels and outputs in base64.") from None
        # Steps of int32 would overflow.
        steps = np.diff(pixels.astype(np.int64), prepend=-1, append=PIXELS_PER_SENSOR)
        if not 0 < len(pixels) == len(outputs) or np.any(steps <= 0):
            message = (
                f"{field} must hold one output per pixel, and pixels that ascend from 0 to {PIXELS_PER_SENSOR - 1}."
            )
            raise CardError(field, message)
        if not np.all(np.isfinite(outputs)):
            raise CardError(field, f"{field} must hold finite outputs.")
