"""The digitisation: compute charges and zero-suppressed digits from the images of a generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from pxdbg_runtime.checks import check_integer
from pxdbg_runtime.digitisation.numpy_hits import TANH_LIMITS, HitFinder
from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ImageError
from pxdbg_runtime.optional_imports import require
from pxdbg_runtime.sensors import N_U_CELLS, N_V_CELLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.digitisation.numpy_hits import Hits
    from pxdbg_runtime.model.card import ModelCard

    Images = NDArray[np.float32] | NDArray[np.uint8]

__all__ = ["Digitiser"]


class Digitiser:
    """Converts images to digits with the thresholds of a model card.

    Images of tanh values, which a CPU needs half a second or more for, are digitised with NumPy. Images of charges,
    which a GPU computes in milliseconds, are digitised by a compiled kernel.

    Parameters
    ----------
    card : ModelCard
    min_charge : int or None
        Smallest charge of a hit in ADU, at least the model's own; None takes that one.

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If `min_charge` is not an integer from the model's own to 255.
    MissingPackageError, BrokenPackageError
        If the images are charges and numba cannot be imported.
    """

    def __init__(self, card: ModelCard, min_charge: int | None = None) -> None:
        wanted = card.min_charge if min_charge is None else min_charge
        self.min_charge = check_integer("min_charge", wanted, card.min_charge, len(card.thresholds), unit="ADU")
        self._sensors = np.array(card.sensors, dtype=np.uint16)
        self._finder = None
        if card.output_kind == "charges":
            require("numba", extra="cpu", purpose="The digitisation")
        else:
            self._finder = HitFinder(card.compute_charge_table(), self.min_charge)

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
        vxd_ids = self._sensors[indices]
        if self._finder is None:
            return self._find_charges(images, event, vxd_ids)
        hits = _find_hits(self._finder, images)
        row, v_cell = np.divmod(hits.pixel, N_V_CELLS)
        image, u_cell = np.divmod(row, N_U_CELLS)
        return Digits(
            event=np.full(len(image), event, dtype=np.int64),
            sensor_id=vxd_ids[image],
            u_cell=u_cell.astype(np.uint16),
            v_cell=v_cell.astype(np.uint16),
            charge=hits.charge,
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
        if self._finder is None:
            return np.where(images >= self.min_charge, images, 0).astype(np.uint8)
        hits = _find_hits(self._finder, images)
        charges = np.zeros(images.shape, dtype=np.uint8)
        charges.reshape(-1)[hits.pixel] = hits.charge
        return charges

    def _find_charges(self, images: Images, event: int, vxd_ids: NDArray[np.uint16]) -> Digits:
        from pxdbg_runtime.digitisation import kernels

        # `np.empty` commits no page until it is written.
        sensor_id, u_cell, v_cell = (np.empty(images.size, dtype=np.uint16) for _ in range(3))
        charge = np.empty(images.size, dtype=np.uint8)
        charges = cast("NDArray[np.uint8]", images)
        n_hits = kernels.find_hits(charges, self.min_charge, vxd_ids, sensor_id, u_cell, v_cell, charge)
        return Digits(
            event=np.full(n_hits, event, dtype=np.int64),
            sensor_id=sensor_id[:n_hits].copy(),
            u_cell=u_cell[:n_hits].copy(),
            v_cell=v_cell[:n_hits].copy(),
            charge=charge[:n_hits].copy(),
        )

    def _check_images(self, images: Images) -> Images:
        shape, dtype = (N_U_CELLS, N_V_CELLS), np.dtype(np.uint8 if self._finder is None else np.float32)
        if images.dtype != dtype or images.ndim != 3 or images.shape[1:] != shape:
            message = (
                f"Images must be {dtype} of shape (n, {N_U_CELLS}, {N_V_CELLS}), but are {images.dtype} of shape "
                f"{images.shape}."
            )
            raise ImageError(message)
        return images if images.flags.c_contiguous else images.copy()


def _find_hits(finder: HitFinder, images: Images) -> Hits:
    hits = finder.find_hits(cast("NDArray[np.float32]", images))
    if hits is None:
        raise _describe_invalid_value(images)
    return hits


def _describe_invalid_value(images: Images) -> ImageError:
    """Name the first value outside the range of tanh."""
    value = images[~((images >= TANH_LIMITS[0]) & (images <= TANH_LIMITS[1]))][0]
    found = "a NaN" if np.isnan(value) else f"the value {value!s}"
    return ImageError(
        f"An image holds {found} where a value in [-1, 1] was expected: the graph or its latents are not valid."
    )
