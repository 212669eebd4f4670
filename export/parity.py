"""How far ONNX Runtime's images are from PyTorch's, on fresh latents."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from export.charge import charges_of, hit_charges
from export.errors import ParityError
from export.models import LATENT_SIZE
from export.torch_graph import INPUT_NAME, OUTPUT_NAME
from pxdbg_runtime.card import Parity
from pxdbg_runtime.providers import CPU, import_onnxruntime

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from export.models import GeneratorModule

__all__ = ["MAX_ABS_DIFFERENCE", "allowed_difference", "measured_parity", "require_parity"]

MAX_ABS_DIFFERENCE: Final = 1e-5
"""A graph that differs by more is not written, unless the rounding of float32 is accepted where it is asked for."""
_ROUNDINGS: Final = 8.0
"""By how many times PyTorch's own rounding a graph may differ: both round, and each in another order."""
_N_IMAGES: Final = 8
_BATCH_SIZE: Final = 4


def measured_parity(
    model: GeneratorModule, graph: onnx.ModelProto, thresholds: NDArray[np.float32], min_charge: int
) -> Parity:
    """Compare the images of a graph with those of its model, on latents never used before.

    Parameters
    ----------
    model : GeneratorModule
    graph : onnx.ModelProto
        It gives tanh values.
    thresholds : ndarray of float32, shape (255,)
        Of the graph's charges.
    min_charge : int
        Smallest charge of a hit, ADU: pixels with less are empty in both.
    """
    session = import_onnxruntime().InferenceSession(graph.SerializeToString(), providers=[CPU])
    generator = torch.Generator()
    generator.seed()
    largest, n_equal, n_pixels = 0.0, 0, 0
    for _ in range(0, _N_IMAGES, _BATCH_SIZE):
        latent = torch.randn(_BATCH_SIZE, LATENT_SIZE, generator=generator)
        with torch.inference_mode():
            expected = model(latent)
        (found,) = session.run([OUTPUT_NAME], {INPUT_NAME: latent.numpy()})
        difference = np.abs(np.asarray(found) - expected.numpy())
        # A NaN must not pass for a small number.
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
        charges = charges_of(expected).numpy()
        equal = hit_charges(found, thresholds, min_charge) == np.where(charges < min_charge, 0, charges)
        n_equal += int(equal.sum())
        n_pixels += equal.size
    return Parity(images=_N_IMAGES, max_abs_difference=largest, equal_charges=n_equal / n_pixels)


def allowed_difference(model: GeneratorModule) -> float:
    """Find by how much a graph may differ from a model.

    A generator with steep edges enlarges the rounding of float32: PyTorch's images then differ from exact arithmetic by more
    than `MAX_ABS_DIFFERENCE`, and no other order of the same sums can be nearer to them.

    Returns
    -------
    float
        `MAX_ABS_DIFFERENCE`, or eight times the largest difference between the images of float32 and of float64.
    """
    latent = torch.randn(_BATCH_SIZE, LATENT_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = copy.deepcopy(model).double()(latent.double())
        rounding = float((model(latent).double() - exact).abs().max())
    return max(MAX_ABS_DIFFERENCE, _ROUNDINGS * rounding)


def require_parity(parity: Parity, allowed: float = MAX_ABS_DIFFERENCE) -> None:
    """Refuse a graph whose images differ by too much.

    Raises
    ------
    ParityError
        If the largest difference is above what is allowed, see `allowed_difference`.
    """
    if not parity.max_abs_difference <= allowed:
        message = (
            f"The graph's images differ from PyTorch's by up to {parity.max_abs_difference:.3g}, more than the "
            f"{allowed:.3g} that is allowed: nothing was written."
        )
        raise ParityError(parity.max_abs_difference, message)
