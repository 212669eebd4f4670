"""Bias correction of the mean effect of rounded weights, in whole int8 graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from export.int8 import OutputRange, calibrate, measure_means, quantize_graph
from tests.int8_sketches import chain, feeds_of, finish, images_of, latents, residual

if TYPE_CHECKING:
    import onnx


def mean_errors(model: onnx.ModelProto, *, are_corrected: bool) -> float:
    """Measure the error of the mean image, in steps of 255 over the range of the images."""
    inputs = latents(1, 40)
    exact = images_of(model, inputs)
    output_range = OutputRange(low=float(exact.min()), high=float(exact.max()))
    means = measure_means(model, feeds_of(inputs)) if are_corrected else None
    found = images_of(quantize_graph(model, calibrate(model, feeds_of(inputs)), output_range, 7, means), inputs)
    return float(abs((found - exact).mean()) * 255 / (output_range.high - output_range.low))


@pytest.mark.parametrize("kind", ["chain", "residual"])
def test_images_are_right_on_average(kind: str) -> None:
    models = [
        finish(chain(seed, (24, 20, 8), (3, 3, 3)) if kind == "chain" else residual(seed, (24, 8), 3))
        for seed in range(12)
    ]
    without, corrected = (
        np.mean([mean_errors(model, are_corrected=are_corrected) for model in models])
        for are_corrected in (False, True)
    )
    assert corrected < 0.7 * without
