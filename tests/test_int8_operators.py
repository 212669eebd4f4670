"""ONNX Runtime's 8-bit operators against plain NumPy, integer by integer; other tests walk whole graphs with these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

__all__ = ["OPERATORS", "check_plain_integers", "every_value"]

MICROSOFT: Final = "com.microsoft"
AT_A_TIE: Final = 1e-4
"""In levels. A sum of two float32 products is that close to its exact value, however it is ordered or fused."""
ROUNDING: Final = 1e-5
"""Of what leaves the integers, of itself."""

few = settings(max_examples=25)


class QLinearConv(OpRun):
    """A convolution of channels-last images: integers throughout, until each sum is scaled by one float32 product."""

    op_domain = MICROSOFT
    channels_last: int
    pads: Sequence[int]
    strides: Sequence[int]

    def _run(
        self,
        image: NDArray[np.uint8],
        image_scale: NDArray[np.float32],
        image_zero_point: NDArray[np.uint8],
        weight: NDArray[np.int8],
        weight_scale: NDArray[np.float32],
        weight_zero_point: NDArray[np.int8],
        scale: NDArray[np.float32],
        zero_point: NDArray[np.uint8],
        bias: NDArray[np.int32],
        **_attributes: object,
    ) -> tuple[NDArray[np.uint8]]:
        assert self.channels_last == 1
        assert not weight_zero_point.any()
        top, left, bottom, right = self.pads
        centred = image.astype(np.int64) - int(image_zero_point)
        padded = np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0)))
        taps_down, taps_across = weight.shape[2:]
        kernel = without_groups(weight, image.shape[3])
        down, across = self.strides
        height, width = (
            (padded.shape[axis] - taps) // stride + 1
            for axis, taps, stride in ((1, taps_down, down), (2, taps_across, across))
        )
        sums = np.tile(bias.astype(np.int64), (len(image), height, width, 1))
        for a in range(taps_down):
            for b in range(taps_across):
                rows, columns = slice(a, a + down * height, down), slice(b, b + across * width, across)
                sums += padded[:, rows, columns][:, :height, :width] @ kernel[:, :, a, b].T
        assert np.abs(sums).max(initial=0) < 2**31
        factor = (image_scale * weight_scale) / scale
        assert factor.dtype == np.float32
        levels = np.rint(sums.astype(np.float32) * factor) + int(zero_point)
        return (np.clip(levels, 0, 255).astype(np.uint8),)


class QLinearAdd(OpRun):
    """A sum of two images, in float64 before it is rounded."""

    op_domain = MICROSOFT

    def _run(self, *inputs: NDArray[np.generic]) -> tuple[NDArray[np.uint8]]:
        return (np.clip(np.rint(compute_exact_sum(*inputs)), 0, 255).astype(np.uint8),)


class MatMulIntegerToFloat(OpRun):
    """A product of integer matrices, scaled and shifted in float32 at its end."""

    op_domain = MICROSOFT

    def _run(
        self,
        levels: NDArray[np.uint8],
        matrix: NDArray[np.int8],
        scale: NDArray[np.float32],
        matrix_scale: NDArray[np.float32],
        zero_point: None,
        matrix_zero_point: None,
        bias: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32]]:
        assert zero_point is None
        assert matrix_zero_point is None
        products = levels.astype(np.int64) @ matrix.astype(np.int64)
        return (products.astype(np.float32) * (scale * matrix_scale) + bias,)


class QGemm(OpRun):
    """A linear layer: integers throughout, until each sum is scaled by one float32 product; levels or float32."""

    op_domain = MICROSOFT

    def _run(
        self,
        vector: NDArray[np.uint8],
        vector_scale: NDArray[np.float32],
        vector_zero_point: NDArray[np.uint8],
        weight: NDArray[np.int8],
        weight_scale: NDArray[np.float32],
        weight_zero_point: NDArray[np.int8],
        bias: NDArray[np.int32] | None = None,
        scale: NDArray[np.float32] | None = None,
        zero_point: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.generic]]:
        assert not weight_zero_point.any()
        sums = (vector.astype(np.int64) - int(vector_zero_point)) @ weight.astype(np.int64)
        sums = sums if bias is None else sums + bias
        assert np.abs(sums).max(initial=0) < 2**31
        factor = vector_scale * weight_scale
        assert factor.dtype == np.float32
        if scale is None or zero_point is None:
            return (sums.astype(np.float32) * factor,)
        factor = factor / scale
        levels = np.rint(sums.astype(np.float32) * factor) + int(zero_point)
        return (np.clip(levels, 0, 255).astype(np.uint8),)


OPERATORS: Final[list[type[OpRun]]] = [QLinearConv, QLinearAdd, MatMulIntegerToFloat, QGemm]


def without_groups(weight: NDArray[np.int8], n_in: int) -> NDArray[np.int64]:
    """Write the weights of a grouped convolution (out, in / groups, height, width) with zeros for all other inputs."""
    n_out, n_each = weight.shape[:2]
    n_groups = n_in // n_each
    dense = np.zeros((n_out, n_in, *weight.shape[2:]), np.int64)
    for channel in range(n_out):
        start = channel * n_groups // n_out * n_each
        dense[channel, start : start + n_each] = weight[channel]
    return dense


def compute_exact_sum(*inputs: NDArray[np.generic]) -> NDArray[np.float64]:
    """Compute the levels of a QLinearAdd before they are rounded."""
    left, left_scale, left_zero, right, right_scale, right_zero, scale, zero = (
        np.asarray(each).astype(np.float64) for each in inputs
    )
    summed = (left - left_zero) * left_scale + (right - right_zero) * right_scale
    return summed / scale + zero


def every_value(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
    """Run a graph on ONNX Runtime and give what each of its nodes gives."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given_out = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output]
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names if name not in given_out)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def check_plain_integers(model: onnx.ModelProto, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
    """Compare each node's result on ONNX Runtime with that of its plain version on the same inputs; return the results.

    Integers must be equal. Only a sum of two images may be a level off, and only where it lies between two levels.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = every_value(model, inputs)
    known = constants | values | dict(inputs)
    for node in model.graph.node:
        found, name = values[node.output[0]], f"{node.op_type} {node.output[0]}"
        if node.op_type == "QLinearAdd":
            exact = np.clip(compute_exact_sum(*(known[each] for each in node.input)), 0, 255)
            assert found.dtype == np.uint8, name
            assert np.all(np.abs(found.astype(np.float64) - exact) <= 0.5 + AT_A_TIE), name
            continue
        feeds = {each: known[each] for each in node.input if each}
        (expected,) = ReferenceEvaluator(node, new_ops=OPERATORS).run(None, feeds)
        assert isinstance(expected, np.ndarray)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), name
        if found.dtype == np.uint8 or node.op_type in ("Reshape", "Transpose"):
            assert np.array_equal(found, expected), name
        else:
            assert np.allclose(found.astype(np.float64), expected, rtol=ROUNDING, atol=ROUNDING), name
    return values


def single(node: onnx.NodeProto, image: NDArray[np.uint8], constants: Arrays, output_type: int) -> onnx.ModelProto:
    """Make a graph of one node, whose first input is the image."""
    shape = [None, *image.shape[1:]]
    graph = helper.make_graph(
        [node],
        "single",
        [helper.make_tensor_value_info(node.input[0], TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info(node.output[0], output_type, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def levels(generator: np.random.Generator, shape: Sequence[int]) -> NDArray[np.uint8]:
    return generator.integers(0, 256, tuple(shape), dtype=np.uint8)


@few
@given(
    seed=st.integers(0, 2**32),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 70)),
    taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    n_images=st.integers(1, 3),
    is_depthwise=st.booleans(),
)
def test_a_convolution_of_seven_bits_gives_the_plain_integers(
    seed: int, channels: tuple[int, int], taps: tuple[int, int], stride: int, n_images: int, is_depthwise: bool
) -> None:
    generator = np.random.default_rng(seed)
    n_in, n_out = (channels[1],) * 2 if is_depthwise else channels
    n_each = 1 if is_depthwise else n_in
    image = levels(generator, (n_images, 5, 6, n_in))
    # So that most results lie within the levels, and some beyond.
    scale = 50 * np.sqrt(n_each * taps[0] * taps[1])
    constants: dict[str, NDArray[np.generic]] = {
        "image_scale": np.array(0.7, np.float32),
        "image_zero_point": np.array(generator.integers(0, 256), np.uint8),
        "weight": generator.integers(-64, 65, (n_out, n_each, *taps), dtype=np.int8),
        "weight_scale": generator.uniform(0.5, 1.5, n_out).astype(np.float32),
        "weight_zero_point": np.zeros(n_out, np.int8),
        "scale": np.array(scale, np.float32),
        "zero_point": np.array(generator.integers(0, 256), np.uint8),
        "bias": generator.integers(-2000, 2000, n_out, dtype=np.int32),
    }
    pads = [*(each // 2 for each in taps), *((each - 1) // 2 for each in taps)]
    node = helper.make_node(
        *("QLinearConv", ["image", *constants], ["result"]),
        domain=MICROSOFT,
        channels_last=1,
        group=n_in // n_each,
        kernel_shape=list(taps),
        pads=pads,
        strides=[stride, stride],
    )
    check_plain_integers(single(node, image, constants, TensorProto.UINT8), {"image": image})


@few
@given(
    seed=st.integers(0, 2**32), sizes=st.tuples(st.integers(1, 140), st.integers(1, 300)), n_vectors=st.integers(1, 3)
)
def test_a_linear_layer_of_seven_bits_gives_the_plain_integers(
    seed: int, sizes: tuple[int, int], n_vectors: int
) -> None:
    generator = np.random.default_rng(seed)
    n_in, n_out = sizes
    vector = levels(generator, (n_vectors, n_in))
    constants: dict[str, NDArray[np.generic]] = {
        "vector_scale": np.array(0.7, np.float32),
        "vector_zero_point": np.array(generator.integers(0, 256), np.uint8),
        "weight": generator.integers(-64, 65, (n_in, n_out), dtype=np.int8),
        "weight_scale": generator.uniform(0.5, 1.5, n_out).astype(np.float32),
        "weight_zero_point": np.zeros(n_out, np.int8),
        "bias": generator.integers(-2000, 2000, n_out, dtype=np.int32),
        # So that most results lie within the levels, and some beyond.
        "scale": np.array(50 * np.sqrt(n_in), np.float32),
        "zero_point": np.array(generator.integers(0, 256), np.uint8),
    }
    node = helper.make_node("QGemm", ["vector", *constants], ["result"], domain=MICROSOFT)
    check_plain_integers(single(node, vector, constants, TensorProto.UINT8), {"vector": vector})


@few
@given(seed=st.integers(0, 2**32), channels=st.integers(1, 40), is_broadcast=st.booleans())
def test_a_sum_gives_the_nearest_level(seed: int, channels: int, is_broadcast: bool) -> None:
    generator = np.random.default_rng(seed)
    image = levels(generator, (2, 4, 2, channels))
    scales = generator.uniform(0.01, 0.1, 2)
    constants: dict[str, NDArray[np.generic]] = {
        "left_scale": np.array(scales[0], np.float32),
        "left_zero_point": np.array(generator.integers(0, 256), np.uint8),
        "right": levels(generator, (2, 4, 1 if is_broadcast else 2, channels)),
        "right_scale": np.array(scales[1], np.float32),
        "right_zero_point": np.array(generator.integers(0, 256), np.uint8),
        "scale": np.array(scales.sum(), np.float32),
        "zero_point": np.array(generator.integers(0, 256), np.uint8),
    }
    node = helper.make_node("QLinearAdd", ["image", *constants], ["result"], domain=MICROSOFT)
    check_plain_integers(single(node, image, constants, TensorProto.UINT8), {"image": image})


@few
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 20), columns=st.integers(1, 20))
def test_a_product_of_integers_is_scaled_at_its_end(seed: int, rows: int, columns: int) -> None:
    generator = np.random.default_rng(seed)
    image = levels(generator, (5, rows))
    constants: dict[str, NDArray[np.generic]] = {
        "matrix": generator.integers(-64, 65, (rows, columns), dtype=np.int8),
        "image_scale": np.array(1 / 64, np.float32),
        "matrix_scale": np.array(0.5, np.float32),
        "bias": generator.integers(-10, 10, columns).astype(np.float32),
    }
    inputs = ["image", "matrix", "image_scale", "matrix_scale", "", "", "bias"]
    node = helper.make_node("MatMulIntegerToFloat", inputs, ["result"], domain=MICROSOFT)
    model = single(node, image, constants, TensorProto.FLOAT)
    found = check_plain_integers(model, {"image": image})
    (expected,) = ReferenceEvaluator(model, new_ops=OPERATORS).run(None, {"image": image})
    # These scales are powers of two, and then nothing is rounded at all.
    assert np.array_equal(found["result"], np.asarray(expected))
