"""The digitisation: compute charges and zero-suppressed digits from the images of a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.digitisation import kernels
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ImageError
from pxdbg_runtime.sensors import MAX_CHARGE_ADU, N_U_CELLS, N_V_CELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.kernels import Images
    from pxdbg_runtime.model.card import ModelCard

__all__ = ["TANH_LIMITS", "Digitiser"]

TANH_LIMITS: Final = np.array([-1 - 1e-6, 1 + 1e-6], dtype=np.float32)
"""Range of tanh, with eight steps of float32 beyond 1 for libraries whose tanh rounds to more than 1."""


class Digitiser:
    """Converts images to digits with the thresholds of a model card.

    Parameters
    ----------
    card : ModelCard
    min_charge : int or None
        Smallest charge of a hit in ADU, at least the model's own; None takes that one.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `min_charge` is not an integer from the model's own to 255.
    """

    def __init__(self, card: ModelCard, min_charge: int | None = None) -> None:
        wanted = card.min_charge if min_charge is None else min_charge
        self.min_charge = check_integer("min_charge", wanted, card.min_charge, len(card.thresholds), unit="ADU")
        self._sensors = np.array(card.sensors, dtype=np.uint16)
        # The same kernels digitise images of charges: the threshold of a charge is the charge itself.
        is_charge = card.output_kind == "charges"
        self._table: Images = (
            np.arange(1, MAX_CHARGE_ADU + 1, dtype=np.uint8) if is_charge else card.compute_charge_table()
        )
        self._limits: Images = np.array([0, MAX_CHARGE_ADU], dtype=np.uint8) if is_charge else TANH_LIMITS
        self._threshold = self._table[self.min_charge - 1]

    def find_digits(self, images: Images, *, event: int = 0, sensors: Sequence[int] | None = None) -> Digits:
        """Find the digits in images of sensors of an event.

        Parameters
        ----------
        images : ndarray of float32 or uint8, shape (n, 250, 768)
            Tanh values, or charges in ADU, by the card's ``output_kind``.
        event : int
            Event number.
        sensors : sequence of int, optional
            Index of the sensor of each image, ascending; the first sensors if None.

        Raises
        ------
        ImageError
            If the images have another shape or dtype, or hold a NaN or a value beyond [-1, 1]; if `sensors` are not
            as many different indices in ascending order.
        """
        images = self._check_images(images)
        indices = np.array(range(len(images)) if sensors is None else sensors, dtype=np.int64)
        is_ascending = bool(np.all(np.diff(indices, prepend=-1, append=len(self._sensors)) > 0))
        if len(indices) != len(images) or not is_ascending:
            message = (
                f"{len(images)} images need the indices of as many sensors, ascending from 0 to "
                f"{len(self._sensors) - 1}, but were given {indices.tolist()}."
            )
            raise ImageError(message)
        # `np.empty` commits no page until it is written.
        sensor_id, u_cell, v_cell = (np.empty(images.size, dtype=np.uint16) for _ in range(3))
        charge = np.empty(images.size, dtype=np.uint8)
        vxd_ids = self._sensors[indices]
        n_hits = kernels.find_hits(
            images, self._threshold, self._table, self._limits, vxd_ids, sensor_id, u_cell, v_cell, charge
        )
        if n_hits < 0:
            raise _describe_invalid_value(images)
        return Digits(
            event=np.full(n_hits, event, dtype=np.int64),
            sensor_id=sensor_id[:n_hits].copy(),
            u_cell=u_cell[:n_hits].copy(),
            v_cell=v_cell[:n_hits].copy(),
            charge=charge[:n_hits].copy(),
        )

    def compute_charges(self, images: Images) -> NDArray[np.uint8]:
        """Compute the charges of all pixels.

        Parameters
        ----------
        images : ndarray of float32 or uint8, shape (n, 250, 768)
            Tanh values, or charges in ADU, by the card's ``output_kind``.

        Returns
        -------
        ndarray of uint8, shape (n, 250, 768)
            ADU; 0 where there is no hit.

        Raises
        ------
        ImageError
            If the images have another shape or dtype, or hold a NaN or a value beyond [-1, 1].
        """
        images = self._check_images(images)
        charges = np.empty(images.shape, dtype=np.uint8)
        if not kernels.fill_charges(images, self._threshold, self._table, self._limits, charges):
            raise _describe_invalid_value(images)
        return charges

    def _check_images(self, images: Images) -> Images:
        shape, dtype = (N_U_CELLS, N_V_CELLS), self._table.dtype
        if images.dtype != dtype or images.ndim != 3 or images.shape[1:] != shape:
            message = (
                f"Images must be {dtype} of shape (n, {N_U_CELLS}, {N_V_CELLS}), but are {images.dtype} of shape "
                f"{images.shape}."
            )
            raise ImageError(message)
        return images if images.flags.c_contiguous else images.copy()


def _describe_invalid_value(images: Images) -> ImageError:
    """Name the first value outside the range of tanh."""
    value = images[~((images >= TANH_LIMITS[0]) & (images <= TANH_LIMITS[1]))][0]
    found = "a NaN" if np.isnan(value) else f"the value {value!s}"
    return ImageError(
        f"An image holds {found} where a value in [-1, 1] was expected: the graph or its latents are not valid."
    )
