"""Known answers: reference outputs of a few images, which travel in the model card.

They let the runtime find out whether this release of ONNX Runtime, on this machine, computes a graph rightly: see
`pxdbg_runtime.inference.verification`. The latents of the images come from the Philox stream, so the card holds outputs alone.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from pxdbg_runtime.errors import CardError
from pxdbg_runtime.json_fields import NumberRange
from pxdbg_runtime.sensors import N_SENSORS, PIXELS_PER_SENSOR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pxdbg_runtime.json_fields import Fields

__all__ = ["KnownAnswers", "KnownImage", "OutputKind", "read_known_answers"]

OutputKind = Literal["values", "charges"]
_MAX_EVENT: Final = 2**63 - 1
_PIXEL_DTYPE: Final = np.dtype("<i4")
_OUTPUT_DTYPES: Final[dict[str, np.dtype[np.float32] | np.dtype[np.uint8]]] = {
    "values": np.dtype("<f4"),
    "charges": np.dtype("<u1"),
}


@dataclass(frozen=True, kw_only=True)
class KnownImage:
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

    sensor: int
    pixels: str
    outputs: str

    def pixel_numbers(self) -> NDArray[np.int32]:
        """Decode the pixels, shape (pixels,)."""
        return np.frombuffer(base64.b64decode(self.pixels, validate=True), _PIXEL_DTYPE).astype(np.int32)


@dataclass(frozen=True, kw_only=True)
class KnownAnswers:
    """Reference outputs of a graph, and how far from them a sound runtime may be.

    Attributes
    ----------
    compared : {"values", "charges"}
        ``values``: tanh values, made with float64 arithmetic. ``charges``: charges in ADU, before zero suppression.
    seed, event : int
        Of the Philox stream that gives the latents.
    tolerance : float
        Largest difference allowed in any pixel, in the unit of what is compared; 0 is exact.
    mean_tolerance : float
        Largest mean of the absolute differences over the pixels of an image.
    images : tuple of KnownImage
    """

    compared: OutputKind
    seed: int
    event: int
    tolerance: float
    mean_tolerance: float
    images: tuple[KnownImage, ...]

    def expected(self, image: KnownImage) -> NDArray[np.float64]:
        """Decode the reference outputs of one image, shape (pixels,)."""
        raw = base64.b64decode(image.outputs, validate=True)
        outputs: NDArray[np.generic] = np.frombuffer(raw, _OUTPUT_DTYPES[self.compared])
        return outputs.astype(np.float64)

    @classmethod
    def encode_image(
        cls, compared: OutputKind, sensor: int, pixels: NDArray[np.integer], outputs: NDArray[np.generic]
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


def read_known_answers(fields: Fields | None) -> KnownAnswers | None:
    """Read and check the known answers of a card.

    Raises
    ------
    JsonFieldError, CardError
        If a field is missing or invalid.
    """
    if fields is None:
        return None
    answers = KnownAnswers(
        compared=fields.one_of("compared", get_args(OutputKind)),
        seed=fields.integer("seed", NumberRange(-_MAX_EVENT - 1, _MAX_EVENT)),
        event=fields.integer("event", NumberRange(0, _MAX_EVENT)),
        tolerance=fields.number("tolerance", NumberRange(0)),
        mean_tolerance=fields.number("mean_tolerance", NumberRange(0)),
        images=tuple(_read_image(each) for each in fields.list_of_nested("images")),
    )
    fields.nothing_else()
    for number, image in enumerate(answers.images):
        _check_image(answers, image, fields.path(f"images[{number}]"))
    return answers


def _read_image(fields: Fields) -> KnownImage:
    image = KnownImage(
        sensor=fields.integer("sensor", NumberRange(0, N_SENSORS - 1)),
        pixels=fields.text("pixels"),
        outputs=fields.text("outputs"),
    )
    fields.nothing_else()
    return image


def _check_image(answers: KnownAnswers, image: KnownImage, path: str) -> None:
    try:
        pixels, expected = image.pixel_numbers(), answers.expected(image)
    except (binascii.Error, ValueError):
        message = f"{path} must hold pixels and outputs in base64."
        raise CardError(path, message) from None
    is_ascending = bool(np.all(np.diff(pixels) > 0)) and pixels[0] >= 0 and pixels[-1] < PIXELS_PER_SENSOR
    if len(pixels) != len(expected) or not is_ascending:
        message = (
            f"{path} must hold one output for each pixel, and pixels that ascend from 0 to {PIXELS_PER_SENSOR - 1}."
        )
        raise CardError(path, message)
    if not np.all(np.isfinite(expected)):
        message = f"{path} must hold finite outputs."
        raise CardError(path, message)
