"""Graphs without an int8 form are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pytest
from onnx import helper

from export.errors import GraphError
from export.int8 import OutputRange, calibrate, quantize_graph
from tests.int8_sketches import Sketch, chain, feeds_of, finish, latents, lower

Writer = Callable[[Sketch], str]
"""Writes a graph; returns the name of its output."""


def group_channels(sketch: Sketch, image: str) -> str:
    weight = sketch.constant(np.ones((4, 2, 3, 3), np.float32))
    return sketch.node("Conv", [image, weight], kernel_shape=[3, 3], pads=[1] * 4, group=2)


def training_norm(sketch: Sketch, image: str) -> str:
    numbers = [sketch.constant(np.full(4, value, np.float32)) for value in (1, 0, 0, 1)]
    output = sketch.node("BatchNormalization", [image, *numbers])
    sketch.nodes[-1].attribute.append(helper.make_attribute("training_mode", 1))
    sketch.nodes[-1].output.extend(["running_mean", "running_variance"])
    return output


BEFORE_THE_LAST_LAYER: Final[dict[str, tuple[Writer, str]]] = {
    "activation": (
        lambda s: s.node("LeakyRelu", [s.convolve(s.linear(3, 2, 8), 3, 4, 3)]),
        r"int8 has no form for LeakyRelu \(LeakyRelu_\d+\): .* Export it in float32 or",
    ),
    "groups": (
        lambda s: group_channels(s, s.linear(4, 2, 8)),
        r"no form for the convolution Conv_\d+\.u8: expected one group, or one for each",
    ),
    "groups of an upsampled image": (
        lambda s: group_channels(s, s.upsample(s.linear(4, 2, 4))),
        r"no form for the convolution Conv_\d+\.u8: expected one group",
    ),
    "dilation": (
        lambda s: s.convolve(s.linear(3, 2, 8), 3, 4, 3, pad=2, dilations=[2, 2]),
        r"no form for the convolution Conv_\d+\.u8: expected one group, or one for each",
    ),
    "batch norm in training": (
        lambda s: training_norm(s, s.convolve(s.linear(3, 2, 8), 3, 4, 3)),
        r"int8 has no form for BatchNormalization \(BatchNormalization_\d+\)",
    ),
    "upsampling alone": (
        lambda s: s.relu(s.upsample(s.convolve(s.linear(3, 2, 4), 3, 4, 3))),
        r"int8 has no form for Resize \(Resize_\d+\)",
    ),
}
NOT_KEPT: Final = r"int8 needs a last convolution of one channel that keeps the size, but Conv_"
LAST_LAYERS: Final[dict[str, tuple[Writer, str]]] = {
    "two channels": (lambda s: s.convolve(s.relu(s.linear(3, 2, 8)), 3, 2, 3), NOT_KEPT),
    "smaller": (lambda s: s.convolve(s.linear(3, 4, 10), 3, 1, 3, pad=0), NOT_KEPT),
    "stride 2": (lambda s: s.convolve(s.linear(3, 4, 16), 3, 1, 3, strides=[2, 2]), NOT_KEPT),
    "odd rows": (lambda s: s.convolve(s.linear(3, 3, 8), 3, 1, 3), r"multiple of 2 x 4 pixels, but Conv_\d+ has 3 x 8"),
    "six columns": (
        lambda s: s.convolve(s.upsample(s.linear(3, 2, 3)), 3, 1, 3),
        r"multiple of 2 x 4 pixels, but Conv_\d+ has 4 x 6",
    ),
    "unknown first layer": (
        lambda s: s.convolve(s.node("Reshape", ["latent", s.constant(np.array([-1, 1, 2, 3], np.int64))]), 1, 1, 3),
        r"int8 has no form for Reshape \(Reshape_\d+\)",
    ),
}


@pytest.mark.parametrize("kind", [*BEFORE_THE_LAST_LAYER, *LAST_LAYERS])
def test_graphs_without_an_int8_form_are_refused(kind: str) -> None:
    sketch = Sketch()
    write, message = (BEFORE_THE_LAST_LAYER | LAST_LAYERS)[kind]
    output = write(sketch)
    model = sketch.model(output if kind in LAST_LAYERS else sketch.convolve(output, 4, 1, 3))
    with pytest.raises(GraphError, match=message):
        lower(model)


def test_images_of_unknown_size_are_refused() -> None:
    model = finish(chain(0, (3, 4, 5), (3, 3, 3)))
    ranges = calibrate(model, feeds_of(latents()))
    del model.graph.value_info[:]
    with pytest.raises(GraphError, match=r"int8 needs images of known size, but .* has the shape None"):
        quantize_graph(model, ranges, OutputRange(low=0.0, high=1.0))
