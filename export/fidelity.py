"""Distance of a graph's digits from the float32 graph's: charge spectrum, occupancy, share of identical digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.charge import compute_hit_charges
from export.errors import FidelityError
from export.inference import compute_images
from pxdbg_runtime.model.card import MAX_CHARGE_W1_ADU, MAX_OCCUPANCY_DIFFERENCE, N_THRESHOLDS, Fidelity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import onnx
    from numpy.typing import NDArray

    from export.families import Feed

    ImageFunction = Callable[[onnx.ModelProto, Iterable[Feed]], Iterator[NDArray[np.float32]]]

__all__ = ["check_fidelity", "compute_charge_w1", "format_fidelity", "measure_fidelity"]

_EMPTY_W1_ADU: Final = float(N_THRESHOLDS + 1)
"""Above any distance between spectra that have hits."""


def measure_fidelity(
    exact: onnx.ModelProto,
    other: onnx.ModelProto,
    thresholds: NDArray[np.float32],
    feeds: Sequence[Feed],
    min_charge: int,
    other_thresholds: NDArray[np.float32],
    log: Callable[[str], None] = lambda _: None,
    compute_other: ImageFunction = compute_images,
) -> Fidelity:
    """Compare the digits of two graphs on the same inputs.

    Parameters
    ----------
    exact, other : onnx.ModelProto
        The float32 graph and the graph to judge. Both compute tanh values.
    thresholds : ndarray of float32, shape (255,)
        Charge thresholds, see `export.charge`.
    feeds : sequence of Feed
        Inputs, batch by batch.
    min_charge : int
        Smallest charge of a hit, ADU.
    other_thresholds : ndarray of float32, shape (255,)
        Charge thresholds of `other`.
    log : callable, optional
        Called with a line at every tenth of the images.
    compute_other : callable, optional
        Computes the images of `other`, as `export.inference.compute_images` does those of `exact`.

    Returns
    -------
    Fidelity
        Beyond the bounds if float32 has no hit, for then nothing is compared.
    """
    tables = thresholds, other_thresholds
    spectra = np.zeros((2, N_THRESHOLDS + 1), np.int64)
    n_equal = n_either = n_compared = 0
    n_images = sum(min(map(len, feed.values())) for feed in feeds)
    for images in zip(compute_images(exact, feeds), compute_other(other, feeds), strict=True):
        charges = [
            compute_hit_charges(each.ravel(), table, min_charge) for each, table in zip(images, tables, strict=True)
        ]
        spectra += [np.bincount(each, minlength=N_THRESHOLDS + 1) for each in charges]
        is_hit = (charges[0] > 0) | (charges[1] > 0)
        n_either += int(is_hit.sum())
        n_equal += int((charges[0] == charges[1])[is_hit].sum())
        n_tenths, n_compared = 10 * n_compared // n_images, n_compared + len(images[0])
        if 10 * n_compared // n_images > n_tenths:
            log(f"compared with float32: {n_compared} of {n_images} images")
    n_expected, n_found = (int(each[1:].sum()) for each in spectra)
    return Fidelity(
        images=n_compared,
        charge_w1_adu=compute_charge_w1(spectra[0], spectra[1]),
        occupancy_ratio=n_found / n_expected if n_expected else 1.0 + n_found,
        identical_digits=n_equal / n_either if n_either else 0.0,
    )


def compute_charge_w1(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Compute the Wasserstein distance of two charge spectra, counts of charge 0 to 255 ADU, over hits alone.

    An empty spectrum is 256 ADU from any, an empty one too.
    """
    totals = int(first[1:].sum()), int(second[1:].sum())
    if 0 in totals:
        return _EMPTY_W1_ADU
    cumulative = np.cumsum(first[1:] / totals[0]) - np.cumsum(second[1:] / totals[1])
    return float(np.abs(cumulative).sum())


def check_fidelity(fidelity: Fidelity, precision: str, min_charge: int) -> None:
    """Refuse a graph whose digits, of `min_charge` or more, are too far from float32's.

    Raises
    ------
    FidelityError
        If the spectra or the occupancies differ beyond the bounds of `pxdbg_runtime.model.card`, or float32 has no hit.
    """
    if fidelity.is_within_bounds:
        return
    if fidelity.charge_w1_adu == _EMPTY_W1_ADU and fidelity.occupancy_ratio >= 1:  # 0 if only the other has no hit
        advice = (
            "a smaller --min-charge may give hits" if min_charge > 1 else "check the checkpoint, whose images are empty"
        )
        reason = (
            f"The float32 graph gives no hit in {fidelity.images} images, so there is nothing to compare the digits of "
            f"the {precision} graph with: {advice}."
        )
    else:
        reason = (
            f"The digits of the {precision} graph are too far from float32's: W1 of the charge spectrum "
            f"{fidelity.charge_w1_adu:.3f} ADU (below {MAX_CHARGE_W1_ADU} is allowed), occupancy "
            f"{100 * (fidelity.occupancy_ratio - 1):+.2f} % (within {100 * MAX_OCCUPANCY_DIFFERENCE:g} %)."
        )
    message = f"{reason} Nothing was written; --accept-beyond-bounds writes the graph all the same."
    raise FidelityError(fidelity, message)


def format_fidelity(fidelity: Fidelity) -> str:
    """Write a fidelity in one line."""
    return (
        f"digits against float32, {fidelity.images} images: "
        f"W1 of the charge spectrum {fidelity.charge_w1_adu:.3f} ADU, "
        f"occupancy {100 * (fidelity.occupancy_ratio - 1):+.2f} %, "
        f"identical digits {100 * fidelity.identical_digits:.1f} %"
    )
