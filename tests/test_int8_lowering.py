"""Small graphs in 8-bit integers on ONNX Runtime: integer by integer what plain NumPy gives, and near to float32."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.errors import GraphError
from export.graph import simplified
from export.int8 import HeadRange, calibrated, quantised
from tests.test_int8_operators import OPERATORS, require_plain_integers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from export.int8 import WeightBits

__all__ = ["N_LATENTS", "Sketch", "images_of", "latents"]

N_LATENTS: Final = 6
N_IMAGES: Final = 6
INTEGER_OPERATORS: Final = {"QLinearConv", "QLinearAdd", "Concat", "Reshape", "Clip"}

few = settings(max_examples=20)


class Sketch:
    """Writes a small float32 graph with random weights, from latents to images."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray[np.generic]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], **attributes: float | str | Sequence[int]) -> str:
        name = f"{operator}_{len(self.nodes)}"
        made = helper.make_node(operator, list(inputs), [name])
        made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(made)
        return name

    def linear(self, channels: int, height: int, width: int) -> str:
        """Write a linear layer seen as images; its weights are sixteenths, so that no order of its sums matters."""
        n_out = channels * height * width
        weight, bias = (self.random.integers(-16, 17, shape) / 16 for shape in ((n_out, N_LATENTS), (n_out,)))
        flat = self.node(
            "Gemm",
            ["latent", self.constant(weight.astype(np.float32)), self.constant(bias.astype(np.float32))],
            transB=1,
        )
        return self.node("Reshape", [flat, self.constant(np.array([-1, channels, height, width], np.int64))])

    def convolved(
        self, image: str, n_in: int, n_out: int, size: int, *, pad: int | None = None, **attributes: int | Sequence[int]
    ) -> str:
        """Write a convolution that keeps the size of its image, unless told otherwise."""
        weight = self.random.standard_normal((n_out, n_in, size, size)) / (size * np.sqrt(n_in))
        bias = 0.3 * self.random.standard_normal(n_out)
        inputs = [image, self.constant(weight.astype(np.float32)), self.constant(bias.astype(np.float32))]
        pads = [size // 2 if pad is None else pad] * 4
        return self.node("Conv", inputs, kernel_shape=[size, size], pads=pads, **attributes)

    def rectified(self, image: str) -> str:
        return self.node("Relu", [image])

    def doubled(self, image: str) -> str:
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        modes = {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
        return self.node("Resize", [image, "", scales], **modes)

    def model(self, output: str) -> onnx.ModelProto:
        """Give the graph that ends with this value, with the shapes of all others."""
        graph = helper.make_graph(
            self.nodes,
            "sketch",
            [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["n", N_LATENTS])],
            [helper.make_empty_tensor_value_info(output)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def chain(
    seed: int, channels: tuple[int, int, int], sizes: tuple[int, int, int], *, is_last_doubled: bool = False
) -> Sketch:
    """Linear layer, ReLU, convolution of the doubled image, ReLU, convolution, ReLU, convolution to one channel."""
    sketch = Sketch(seed)
    first, second, third = channels
    image = sketch.doubled(sketch.rectified(sketch.linear(first, 2, 4)))
    image = sketch.rectified(sketch.convolved(image, first, second, sizes[0]))
    image = sketch.rectified(sketch.convolved(image, second, third, sizes[1]))
    sketch.convolved(sketch.doubled(image) if is_last_doubled else image, third, 1, sizes[2])
    return sketch


def residual(seed: int, channels: tuple[int, int], size: int, *, n_blocks: int = 1) -> Sketch:
    """Linear layer, blocks whose shortcut is a convolution of single pixels of the doubled image, ReLU, convolution."""
    sketch = Sketch(seed)
    n_in, n_out = channels
    image = sketch.linear(n_in, 2, 4)
    for _ in range(n_blocks):
        main = sketch.convolved(sketch.doubled(sketch.rectified(image)), n_in, n_out, size)
        main = sketch.convolved(sketch.rectified(main), n_out, n_out, size)
        image = sketch.node("Add", [main, sketch.convolved(sketch.doubled(image), n_in, n_out, 1)])
        n_in = n_out
    sketch.convolved(sketch.rectified(image), n_out, 1, 3)
    return sketch


def whole(sketch: Sketch) -> onnx.ModelProto:
    return sketch.model(sketch.nodes[-1].output[0])


def latents(seed: int = 0, n_images: int = N_IMAGES) -> NDArray[np.float32]:
    """Draw latents, multiples of a quarter."""
    return (np.random.default_rng(seed).integers(-8, 9, (n_images, N_LATENTS)) / 4).astype(np.float32)


def images_of(model: onnx.ModelProto, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (images,) = session.run(None, {"latent": inputs})
    assert isinstance(images, np.ndarray)
    return images


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A graph in integers, the float32 graph that it was made of, and latents whose images lie within its ranges."""

    exact: onnx.ModelProto
    integers: onnx.ModelProto
    head: HeadRange
    inputs: NDArray[np.float32]


def lowered(model: onnx.ModelProto, bits: WeightBits = 7, seed: int = 0) -> Lowered:
    inputs = latents(seed)
    exact = images_of(model, inputs)
    head = HeadRange(low=float(exact.min()), high=float(exact.max()))
    integers = quantised(model, calibrated(model, {"latent": inputs}), head, bits)
    return Lowered(exact=model, integers=integers, head=head, inputs=inputs)


def require_near(made: Lowered) -> None:
    """Compare the images with float32's, in steps of 255 over their range."""
    exact, found = (images_of(model, made.inputs) for model in (made.exact, made.integers))
    assert (found.shape, found.dtype) == (exact.shape, exact.dtype)
    steps = (found - exact) * (255 / (made.head.high - made.head.low))
    assert np.sqrt(np.mean(steps**2)) < 4
    assert np.abs(steps).max() < 16


def require_sound(made: Lowered) -> None:
    onnx.checker.check_model(made.integers, full_check=True)
    values = require_plain_integers(made.integers, {"latent": made.inputs})
    # Watching every value must not have changed what is computed.
    assert np.array_equal(values[made.integers.graph.output[0].name], images_of(made.integers, made.inputs))
    require_shapes_as_said(made.integers, values)
    require_integers_between(made.integers)
    require_near(made)


def require_shapes_as_said(model: onnx.ModelProto, values: dict[str, NDArray[np.generic]]) -> None:
    said = {value.name: value.type.tensor_type for value in (*model.graph.value_info, *model.graph.output)}
    for name, value in values.items():
        if name in said and said[name].HasField("shape"):
            assert [axis.dim_value for axis in said[name].shape.dim[1:]] == list(value.shape[1:]), name
            assert helper.tensor_dtype_to_np_dtype(said[name].elem_type) == value.dtype, name


def require_integers_between(model: onnx.ModelProto) -> None:
    """Check that all from the first quantisation to the last layer is uint8 (n, height, width, channels)."""
    (added,) = (node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat")
    said = {value.name: value.type.tensor_type for value in model.graph.value_info}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    waiting, seen = [added.input[0]], set()
    while waiting:
        node = makers[waiting.pop()]
        if node.output[0] in seen:
            continue
        seen.add(node.output[0])
        value = said[node.output[0]]
        assert value.elem_type == TensorProto.UINT8, node.output[0]
        assert node.op_type in INTEGER_OPERATORS | {"QuantizeLinear"}
        if node.op_type == "QuantizeLinear":
            assert len(value.shape.dim) == 4
            continue
        if node.op_type == "QLinearConv":
            attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            assert attributes["channels_last"] == 1
            assert value.shape.dim[3].dim_value == constants[node.input[3]].dims[0]
        waiting += [name for name in node.input if name in makers]
    floats = {node.op_type for node in model.graph.node if node.output[0] not in seen}
    # A last convolution of single pixels is done before the doubling, which then comes behind it.
    assert floats <= {"Gemm", "Reshape", "MatMulIntegerToFloat", "Transpose", "Resize"}


@few
@given(
    seed=st.integers(0, 2**32),
    channels=st.tuples(*(st.sampled_from((3, 16, 17, 63, 64)),) * 3),
    sizes=st.tuples(st.sampled_from((3, 5)), st.sampled_from((1, 3, 5)), st.sampled_from((1, 3, 5))),
    is_last_doubled=st.booleans(),
)
@example(seed=0, channels=(16, 16, 16), sizes=(3, 3, 3), is_last_doubled=False)
@example(seed=1, channels=(3, 63, 17), sizes=(5, 3, 5), is_last_doubled=True)
@example(seed=2, channels=(3, 64, 64), sizes=(3, 5, 3), is_last_doubled=False)
@example(seed=3, channels=(3, 64, 5), sizes=(5, 5, 1), is_last_doubled=True)
def test_a_chain_of_layers(
    seed: int, channels: tuple[int, int, int], sizes: tuple[int, int, int], is_last_doubled: bool
) -> None:
    made = lowered(simplified(whole(chain(seed, channels, sizes, is_last_doubled=is_last_doubled))))
    require_sound(made)
    # Without a sum nothing lies between two levels by chance, so that the whole graph must come out bit for bit.
    (expected,) = ReferenceEvaluator(made.integers, new_ops=OPERATORS).run(None, {"latent": made.inputs})
    assert np.array_equal(images_of(made.integers, made.inputs), np.asarray(expected))


@few
@given(
    seed=st.integers(0, 2**32),
    channels=st.tuples(*(st.sampled_from((3, 16, 17, 63, 64)),) * 2),
    size=st.sampled_from((3, 5)),
    n_blocks=st.integers(1, 2),
)
@example(seed=0, channels=(16, 16), size=3, n_blocks=2)
@example(seed=1, channels=(3, 64), size=3, n_blocks=2)
def test_residual_blocks(seed: int, channels: tuple[int, int], size: int, n_blocks: int) -> None:
    model = simplified(whole(residual(seed, channels, size, n_blocks=n_blocks)))
    made = lowered(model)
    require_sound(made)
    assert [node.op_type for node in made.integers.graph.node].count("QLinearAdd") >= n_blocks


@given(n_images=st.integers(1, 5), start=st.integers(0, 1))
@settings(max_examples=8)
def test_an_image_does_not_depend_on_its_batch(n_images: int, start: int) -> None:
    made = lowered(simplified(whole(residual(5, (4, 6), 3))))
    images = images_of(made.integers, made.inputs)
    assert np.array_equal(
        images_of(made.integers, made.inputs[start : start + n_images]), images[start : start + n_images]
    )


# Forms


def names_of(model: onnx.ModelProto, operator: str) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == operator]


@pytest.mark.parametrize(
    ("channels", "size", "expected"),
    [
        (63, 3, ["row0", "row1"]),
        (64, 3, ["row0.column0", "row0.column1", "row1.column0", "row1.column1"]),
        (64, 5, ["row0", "row1"]),
    ],
)
def test_a_convolution_of_a_doubled_image_is_made_of_rows_or_phases(
    channels: int, size: int, expected: list[str]
) -> None:
    sketch = chain(0, (3, channels, 17), (size, 3, 3))
    convolutions = names_of(lowered(simplified(whole(sketch))).integers, "QLinearConv")
    found = [name.partition(".rectified.")[2] for name in convolutions if ".row" in name]
    assert found == expected


@pytest.mark.parametrize(("channels", "is_wide"), [(16, True), (17, False)])
def test_few_channels_are_made_four_columns_at_once(channels: int, is_wide: bool) -> None:
    made = lowered(simplified(whole(chain(0, (3, 20, channels), (3, 3, 3)))))
    names = names_of(made.integers, "QLinearConv")
    assert any(name.endswith(".columns") for name in names) == is_wide
    require_sound(made)


@pytest.mark.parametrize("stride", [1, 2])
def test_columns_that_are_no_multiple_of_four_are_made_one_by_one(stride: int) -> None:
    sketch = Sketch()
    image = sketch.convolved(sketch.linear(3, 4, 6 * stride), 3, 5, 3, strides=[1, stride])
    image = sketch.rectified(sketch.convolved(sketch.rectified(image), 5, 5, 1))
    # 3 x 3 with pads of two: two columns more, and two rows.
    image = sketch.convolved(image, 5, 4, 3, pad=2)
    sketch.convolved(sketch.rectified(image), 4, 1, 3)
    made = lowered(whole(sketch))
    assert not any(name.endswith(".columns") for name in names_of(made.integers, "QLinearConv")[:2])
    require_sound(made)


def test_what_is_used_both_rectified_and_not_is_convolved_once() -> None:
    sketch = Sketch(3)
    image = sketch.convolved(sketch.doubled(sketch.linear(3, 2, 4)), 3, 18, 3)
    main = sketch.convolved(sketch.rectified(image), 18, 18, 3)
    sketch.convolved(sketch.rectified(sketch.node("Add", [main, image])), 18, 1, 3)
    made = lowered(simplified(whole(sketch)))
    require_sound(made)
    (clipped,) = (node for node in made.integers.graph.node if node.op_type == "Clip")
    assert clipped.output[0].endswith(".rectified")
    assert len(names_of(made.integers, "QLinearConv")) == 2 + 1 + 1, "two rows, the main branch, the head"


def test_a_linear_layer_used_both_rectified_and_not_is_multiplied_once() -> None:
    made = lowered(simplified(whole(residual(4, (5, 18), 3))))
    require_sound(made)
    assert len(names_of(made.integers, "Gemm")) == 1
    assert len(names_of(made.integers, "QuantizeLinear")) == 2


def test_a_doubled_image_that_others_use_too_is_added_by_copying_its_columns() -> None:
    sketch = Sketch(6)
    small = sketch.convolved(sketch.linear(3, 2, 4), 3, 18, 1)
    main = sketch.convolved(sketch.doubled(sketch.rectified(small)), 18, 18, 3)
    sketch.convolved(sketch.rectified(sketch.node("Add", [sketch.doubled(small), main])), 18, 1, 3)
    made = lowered(simplified(whole(sketch)))
    require_sound(made)
    assert [name for name in names_of(made.integers, "Concat") if name.endswith(".wide")]


def test_an_image_that_is_always_dark_is_all_zeros() -> None:
    sketch = Sketch(8)
    image = sketch.convolved(sketch.rectified(sketch.linear(3, 2, 8)), 3, 18, 3)
    bias = sketch.constants[-1]
    bias.CopyFrom(numpy_helper.from_array(np.full(18, -100, np.float32), bias.name))
    output = sketch.convolved(sketch.rectified(image), 18, 1, 3)
    model = sketch.model(output)
    made = quantised(model, calibrated(model, {"latent": latents()}), HeadRange(low=-2.0, high=2.0))
    values = require_plain_integers(made, {"latent": latents()})
    assert not values[f"{image}.rectified"].any()
    weight, (expected,) = (numpy_helper.to_array(each) for each in sketch.constants[-2:])
    allowed = 0.51 * 4 / 1020 + 0.51 * np.abs(weight).max() / 64
    assert np.abs(values[output].astype(np.float64) - expected).max() <= allowed


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), channels=st.sampled_from((1, 5, 18, 70)), is_shared=st.booleans())
def test_a_batch_norm_that_is_left_over_is_done_in_integers(seed: int, channels: int, is_shared: bool) -> None:
    sketch = Sketch(seed)
    image = sketch.convolved(sketch.linear(3, 4, 8), 3, channels, 3)
    signs = np.where(np.arange(channels) % 3 == 2, -1, 1)
    numbers = (
        signs * sketch.random.uniform(0.5, 1.5, channels),
        sketch.random.standard_normal(channels),
        sketch.random.standard_normal(channels),
        sketch.random.uniform(0.5, 1.5, channels),
    )
    inputs = [image, *(sketch.constant(each.astype(np.float32)) for each in numbers)]
    normed = sketch.node("BatchNormalization", inputs, epsilon=1e-3)
    summed = sketch.node("Add", [sketch.rectified(normed), normed if is_shared else image])
    sketch.convolved(sketch.rectified(summed), channels, 1, 3)
    made = lowered(whole(sketch))
    require_sound(made)
    groups = [
        each.i for node in made.integers.graph.node for each in node.attribute if each.name == "group" and each.i != 1
    ]
    assert groups == ([] if channels == 1 else [channels] * (1 + is_shared))


def test_what_follows_the_last_convolution_stays_float32() -> None:
    sketch = chain(7, (3, 5, 5), (3, 3, 3))
    inner = lowered(simplified(whole(sketch)))
    sketch.node("Tanh", [sketch.nodes[-1].output[0]])
    outer = whole(sketch)
    model = quantised(outer, calibrated(outer, {"latent": inner.inputs}), inner.head)
    assert model.graph.node[-1].op_type == "Tanh"
    expected = np.tanh(images_of(inner.integers, inner.inputs))
    np.testing.assert_allclose(images_of(model, inner.inputs), expected, rtol=1e-5, atol=1e-6)


# Sums of sixteen bits


def pair_sums(pixels: NDArray[np.uint8], weights: NDArray[np.int8], *, is_saturating: bool) -> NDArray[np.int64]:
    """Multiply (m, k) by (k, n), two products at a time in 16 bits that saturate: as CPUs without VNNI do."""
    wide, deep = (
        np.pad(each.astype(np.int64), pad) for each, pad in ((pixels, ((0, 0), (0, 1))), (weights, ((0, 1), (0, 0))))
    )
    n_pairs = wide.shape[1] // 2
    pairs = sum(wide[:, part : 2 * n_pairs : 2, None] * deep[None, part : 2 * n_pairs : 2] for part in (0, 1))
    assert isinstance(pairs, np.ndarray)
    limited = np.clip(pairs, -(2**15), 2**15 - 1) if is_saturating else pairs
    summed: NDArray[np.int64] = limited.sum(axis=1)
    return summed


def matrices_of(model: onnx.ModelProto) -> list[NDArray[np.int8]]:
    """Give the weights of all convolutions of integers, each as (in, out)."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [constants[node.input[3]] for node in model.graph.node if node.op_type == "QLinearConv"]
    return [weight.reshape(len(weight), -1).T for weight in weights]


@pytest.mark.parametrize("seed", range(3))
def test_seven_bits_never_saturate(seed: int) -> None:
    matrices = matrices_of(lowered(simplified(whole(residual(seed, (5, 18), 3)))).integers)
    assert len(matrices) > 4
    generator = np.random.default_rng(seed)
    for matrix, order in itertools.product(matrices, range(3)):
        # The worst there could be: bright where the weights of a channel are positive, or negative.
        worst = np.concatenate([255 * (matrix.T > 0), 255 * (matrix.T < 0)]).astype(np.uint8)
        some = generator.integers(0, 256, (4, len(matrix)), dtype=np.uint8)
        pixels = np.concatenate([worst, some])
        rows = generator.permutation(len(matrix)) if order else np.arange(len(matrix))
        plain, saturating = (pair_sums(pixels[:, rows], matrix[rows], is_saturating=each) for each in (False, True))
        assert np.array_equal(plain, saturating)
        assert np.array_equal(plain, pixels.astype(np.int64) @ matrix.astype(np.int64))


def test_eight_bits_do_saturate_somewhere() -> None:
    matrices = matrices_of(lowered(simplified(whole(residual(0, (5, 18), 3))), bits=8).integers)
    saturated = []
    for matrix in matrices:
        bright = np.full((1, len(matrix)), 255, np.uint8)
        plain, saturating = (pair_sums(bright, matrix, is_saturating=each) for each in (False, True))
        saturated.append(not np.array_equal(plain, saturating))
    assert any(saturated)


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_weights_keep_to_their_bits(bits: WeightBits, largest: int) -> None:
    matrices = matrices_of(lowered(simplified(whole(chain(1, (3, 17, 5), (3, 3, 3)))), bits).integers)
    assert {int(np.abs(matrix.astype(np.int64)).max()) for matrix in matrices} == {largest}


# Refusals


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
        lowered(model)


def test_images_of_unknown_size_are_refused() -> None:
    model = whole(chain(0, (3, 4, 5), (3, 3, 3)))
    ranges = calibrated(model, {"latent": latents()})
    del model.graph.value_info[:]
    with pytest.raises(GraphError, match=r"int8 needs images of known size, but .* has the shape None"):
        quantised(model, ranges, HeadRange(low=0.0, high=1.0))
