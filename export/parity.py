"""How far ONNX Runtime's images are from PyTorch's, on fresh latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from export.charge import charges_of
from export.errors import ParityError
from export.models import LATENT_SIZE
from export.torch_graph import INPUT_NAME, OUTPUT_NAME
from pxdbg_runtime.card import Parity
from pxdbg_runtime.providers import CPU, import_onnxruntime

if TYPE_CHECKING:
    import onnx

    from export.models import GeneratorModule

__all__ = ["MAX_ABS_DIFFERENCE", "measured_parity", "require_parity"]

MAX_ABS_DIFFERENCE: Final = 1e-5
"""A graph that differs by more is not written."""
_N_IMAGES: Final = 8
_BATCH_SIZE: Final = 4


def measured_parity(model: GeneratorModule, graph: onnx.ModelProto) -> Parity:
    """Compare the images of a graph with those of its model, on latents never used before."""
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
        equal = charges_of(torch.from_numpy(found)) == charges_of(expected)
        n_equal += int(equal.sum())
        n_pixels += equal.numel()
    return Parity(images=_N_IMAGES, max_abs_difference=largest, equal_charges=n_equal / n_pixels)


def require_parity(parity: Parity) -> None:
    """Refuse a graph whose images differ by too much.

    Raises
    ------
    ParityError
        If the largest difference is above `MAX_ABS_DIFFERENCE`.
    """
    if not parity.max_abs_difference <= MAX_ABS_DIFFERENCE:
        message = (
            f"The graph's images differ from PyTorch's by up to {parity.max_abs_difference:.3g}, more than the "
            f"{MAX_ABS_DIFFERENCE:g} that is allowed: nothing was written."
        )
        raise ParityError(parity.max_abs_difference, message)
