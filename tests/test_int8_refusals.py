"""Graphs that have no form in 8-bit integers are refused in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper

from export.errors import GraphError
from export.int8 import OutputRange, calibrate, quantize_graph
from tests.int8_sketches import Sketch, chain, feeds_of, latents, lower, whole

if TYPE_CHECKING:
    from collections.abc import Callable


def with_an_activation_between(sketch: Sketch) -> str:
    image = sketch.node("LeakyRelu", [sketch.convolved(sketch.linear(3, 2, 8), 3, 4, 3)])
    return sketch.convolved(image, 4, 1, 3)


def with_groups(sketch: Sketch) -> str:
    image = sketch.linear(4, 2, 8)
    weight = sketch.constant(np.ones((4, 2, 3, 3), np.float32))
    grouped = sketch.node("Conv", [image, weight], kernel_shape=[3, 3], pads=[1] * 4, group=2)
    return sketch.convolved(grouped, 4, 1, 3)


def with_groups_of_a_doubled_image(sketch: Sketch) -> str:
    image = sketch.doubled(sketch.linear(4, 2, 4))
    weight = sketch.constant(np.ones((4, 2, 3, 3), np.float32))
    grouped = sketch.node("Conv", [image, weight], kernel_shape=[3, 3], pads=[1] * 4, group=2)
    return sketch.convolved(grouped, 4, 1, 3)


def with_dilation(sketch: Sketch) -> str:
    image = sketch.convolved(sketch.linear(3, 2, 8), 3, 4, 3, pad=2, dilations=[2, 2])
    return sketch.convolved(image, 4, 1, 3)


def with_a_batch_norm_in_training(sketch: Sketch) -> str:
    image = sketch.convolved(sketch.linear(3, 2, 8), 3, 4, 3)
    numbers = [sketch.constant(np.full(4, value, np.float32)) for value in (1, 0, 0, 1)]
    normed = sketch.node("BatchNormalization", [image, *numbers])
    norm = sketch.nodes[-1]
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["running_mean", "running_variance"])
    return sketch.convolved(normed, 4, 1, 3)


def with_a_doubling_alone(sketch: Sketch) -> str:
    image = sketch.rectified(sketch.doubled(sketch.convolved(sketch.linear(3, 2, 4), 3, 4, 3)))
    return sketch.convolved(image, 4, 1, 3)


def with_two_channels_at_the_end(sketch: Sketch) -> str:
    return sketch.convolved(sketch.rectified(sketch.linear(3, 2, 8)), 3, 2, 3)


def with_an_end_that_shrinks(sketch: Sketch) -> str:
    return sketch.convolved(sketch.linear(3, 4, 10), 3, 1, 3, pad=0)


def with_an_end_of_stride_two(sketch: Sketch) -> str:
    return sketch.convolved(sketch.linear(3, 4, 16), 3, 1, 3, strides=[2, 2])


def with_odd_rows(sketch: Sketch) -> str:
    return sketch.convolved(sketch.linear(3, 3, 8), 3, 1, 3)


def with_odd_columns(sketch: Sketch) -> str:
    return sketch.convolved(sketch.doubled(sketch.linear(3, 2, 2)), 3, 1, 3)


def with_an_unknown_layer_at_the_start(sketch: Sketch) -> str:
    shape = sketch.constant(np.array([-1, 1, 2, 3], np.int64))
    image = sketch.node("Reshape", ["latent", shape])
    return sketch.convolved(image, 1, 1, 3)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (with_an_activation_between, r"int8 has no form for LeakyRelu \(LeakyRelu_\d+\): .* Export it in float32 or"),
        (with_groups, r"no form for the convolution Conv_\d+\.u8: expected one group and no dilation"),
        (with_groups_of_a_doubled_image, r"no form for the convolution Conv_\d+\.u8: expected one group"),
        (with_dilation, r"no form for the convolution Conv_\d+\.u8: expected one group and no dilation"),
        (with_a_batch_norm_in_training, r"int8 has no form for BatchNormalization \(BatchNormalization_\d+\)"),
        (with_a_doubling_alone, r"int8 has no form for Resize \(Resize_\d+\)"),
        (with_two_channels_at_the_end, r"int8 needs a last convolution of one channel that keeps the size, but Conv_"),
        (with_an_end_that_shrinks, r"int8 needs a last convolution of one channel that keeps the size, but Conv_"),
        (with_an_end_of_stride_two, r"int8 needs a last convolution of one channel that keeps the size, but Conv_"),
        (with_odd_rows, r"multiple of 2 x 8 pixels, but Conv_\d+ has 3 x 8"),
        (with_odd_columns, r"multiple of 2 x 8 pixels, but Conv_\d+ has 4 x 4"),
        (with_an_unknown_layer_at_the_start, r"int8 has no form for Reshape \(Reshape_\d+\)"),
    ],
)
def test_what_has_no_form_is_refused(write: Callable[[Sketch], str], message: str) -> None:
    sketch = Sketch()
    model = sketch.model(write(sketch))
    with pytest.raises(GraphError, match=message):
        lower(model)


def test_images_of_unknown_size_are_refused() -> None:
    model = whole(chain(0, (3, 4, 5), (3, 3, 3)))
    ranges = calibrate(model, feeds_of(latents()))
    del model.graph.value_info[:]
    with pytest.raises(GraphError, match=r"int8 needs images of known size, but .* has the shape None"):
        quantize_graph(model, ranges, OutputRange(low=0.0, high=1.0))
