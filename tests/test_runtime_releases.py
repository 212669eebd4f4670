"""Small graphs for each pass and int8 operator, against float64; `make runtime-matrix` runs them in old releases.

Their channels fill the blocks of ONNX Runtime's own layout for images, in which most errors of its releases were.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.graph.charges import append_charges
from export.graph.compiler import SHARED_TERMS, list_passes, run_passes
from export.graph.float16 import convert_to_float16
from tests.compiled_graphs import simplify_graph
from tests.graphs import THRESHOLDS
from tests.int8_sketches import chain, finish, lower, residual
from tests.small_graphs import SmallGraph, plain_generator, residual_generator, run_by_onnxruntime
from tests.test_int8_operators import check_plain_integers

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pxdbg_runtime.model.card import Target

    Writer = Callable[..., onnx.ModelProto]
    Constants = dict[str, NDArray[np.generic] | np.generic]

CHANNELS: Final = (32, 32, 16)
N_LATENTS: Final = 8
ROUNDING: Final = 1e-5
HALF_ROUNDING: Final = 0.02
FOR_CONDITIONS: Final = {
    "merge conditional norms",
    "row tables",
    "batch norms of sums",
    "sums in blocks",
    "image by image",
    "norms as batch norms",
}
"""Passes for graphs with a condition, which these are not."""
PHASES: Final = {SHARED_TERMS, "phase convolutions"}
WRITERS: Final[dict[str, Writer]] = {
    "plain": plain_generator,
    "residual": residual_generator,
    # Phases are sums of terms, which ONNX Runtime fuses into convolutions.
    "plain with kernels of 5": functools.partial(plain_generator, kernel=(5, 5)),
    "residual with kernels of 5": functools.partial(residual_generator, kernel=(5, 5)),
}


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a float32 model with all its numbers in float64; scales of Resize stay as they must be."""
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    scales = {node.input[2] for node in exact.graph.node if node.op_type == "Resize"}
    for tensor in exact.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in scales:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in (*exact.graph.input, *exact.graph.output):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    del exact.graph.value_info[:]
    return exact


def exact_images(model: onnx.ModelProto, feeds: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    (images,) = ReferenceEvaluator(in_float64(model)).run(
        None, {name: value.astype(np.float64) for name, value in feeds.items()}
    )
    assert isinstance(images, np.ndarray)
    assert images.dtype == np.float64
    return images


def graph_and_model(kind: str) -> tuple[SmallGraph, onnx.ModelProto]:
    graph = SmallGraph(5, whole=False)
    return graph, WRITERS[kind](graph, N_LATENTS, CHANNELS)


@pytest.mark.parametrize("target", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_graph_after_each_pass_is_computed_rightly(kind: str, target: Target) -> None:
    graph, plain = graph_and_model(kind)
    feeds = graph.feeds(3)
    expected = exact_images(plain, feeds)
    assert 0.05 < np.abs(expected).mean() < 0.9
    idle = set()
    for stage in run_passes(plain, list_passes(target)):
        (found,) = run_by_onnxruntime(stage.model, feeds)
        assert np.abs(found - expected).max() <= ROUNDING, stage.name
        if stage.n_changes == 0:
            idle.add(stage.name)
    # Phases are of shared terms with kernels of 5, and apart with kernels of 3, for these have too few channels.
    assert idle & PHASES == {"phase convolutions" if "kernels of 5" in kind else SHARED_TERMS}
    # A linear layer is composed with a convolution in the plain kind, and work moves in the other.
    assert len(idle - {"plain", *FOR_CONDITIONS, *PHASES}) <= 1


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_the_graph_in_float16_is_computed_rightly(kind: str) -> None:
    graph, plain = graph_and_model(kind)
    feeds = graph.feeds(2)
    (found,) = run_by_onnxruntime(convert_to_float16(simplify_graph(plain)), feeds)
    assert np.abs(found.astype(np.float64) - exact_images(plain, feeds)).max() <= HALF_ROUNDING


def test_charges_in_a_graph_are_those_of_its_values() -> None:
    graph, plain = graph_and_model("plain")
    feeds = graph.feeds(2)
    thresholds = np.array(THRESHOLDS, np.float32)
    (values,), (charges,) = (run_by_onnxruntime(each, feeds) for each in (plain, append_charges(plain, thresholds)))
    assert charges.dtype == np.uint8
    assert np.array_equal(charges, np.searchsorted(thresholds, values, side="right"))
    assert len(np.unique(charges)) > 40


@pytest.mark.parametrize("channels", [(32, 64, 16), (3, 63, 17)])
def test_chains_in_int8_are_computed_exactly(channels: tuple[int, int, int]) -> None:
    made = lower(simplify_graph(finish(chain(3, channels, (5, 3, 3)))))
    operators = {node.op_type for node in made.integers.graph.node}
    assert operators == {"QuantizeLinear", "QGemm", "QLinearConv", "MatMulIntegerToFloat", "Concat", "Reshape"}
    check_plain_integers(made.integers, {"latent": made.inputs})


@pytest.mark.parametrize("channels", [(32, 64), (16, 16)])
def test_residual_blocks_in_int8_are_computed_exactly(channels: tuple[int, int]) -> None:
    made = lower(simplify_graph(finish(residual(1, channels, 3, n_blocks=2))))
    operators = {node.op_type for node in made.integers.graph.node}
    assert {"QGemm", "QLinearAdd", "QLinearConv", "Slice", "MatMulIntegerToFloat"} <= operators
    check_plain_integers(made.integers, {"latent": made.inputs})


def test_a_channel_convolved_with_itself_is_computed_exactly() -> None:
    random = np.random.default_rng(2)
    constants = {
        "image_scale": np.float32(0.7),
        "image_zero_point": np.uint8(128),
        "weight": random.integers(-64, 65, (64, 1, 1, 1), dtype=np.int8),
        "weight_scale": random.uniform(0.5, 1.5, 64).astype(np.float32),
        "weight_zero_point": np.zeros(64, np.int8),
        "scale": np.float32(50),
        "zero_point": np.uint8(0),
        "bias": random.integers(-2000, 2000, 64, dtype=np.int32),
    }
    inputs = ["image", *constants]
    node = helper.make_node(
        "QLinearConv",
        inputs,
        ["result"],
        domain="com.microsoft",
        channels_last=1,
        group=64,
        kernel_shape=[1, 1],
        pads=[0, 0, 0, 0],
        strides=[1, 1],
    )
    model = helper.make_model(
        helper.make_graph(
            [node],
            "lines",
            [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 8, 12, 64])],
            [helper.make_tensor_value_info("result", TensorProto.UINT8, None)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    image = random.integers(0, 256, (2, 8, 12, 64), dtype=np.uint8)
    found = check_plain_integers(model, {"image": image})["result"]
    assert len(np.unique(found)) > 100


def test_sums_of_bytes_are_computed_exactly() -> None:
    """Each byte plus each offset of a vector, rectified: `export.int8.image_loop`."""
    zero_point, offsets = 40, np.arange(41, dtype=np.uint8)
    image = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], len(offsets), axis=1)[np.newaxis]
    constants: Constants = {"highest": np.uint8(255 - zero_point), "least": np.uint8(zero_point), "offset": offsets}
    nodes = [
        helper.make_node("Clip", ["image", "", "highest"], ["capped"]),
        helper.make_node("Add", ["capped", "offset"], ["sum"]),
        helper.make_node("Clip", ["sum", "least"], ["result"]),
    ]
    expected = np.clip(np.minimum(image.astype(np.int64), 255 - zero_point) + offsets, zero_point, 255)
    assert np.array_equal(run_on_bytes(nodes, image, constants), expected)


def test_a_linear_layer_of_bytes_is_computed_exactly() -> None:
    random = np.random.default_rng(4)
    vector = random.integers(0, 256, (3, 96), dtype=np.uint8)
    weight, bias = random.integers(-64, 65, (96, 80), dtype=np.int8), random.integers(-9999, 9999, 80, dtype=np.int32)
    # Powers of two, so that NumPy rounds the products as any order of them is rounded.
    scales = (2.0 ** random.integers(-12, -9, 80)).astype(np.float32)
    constants: Constants = {
        "vector_scale": np.float32(0.5),
        "vector_zero_point": np.uint8(120),
        "weight": weight,
        "weight_scale": scales,
        "weight_zero_point": np.zeros(80, np.int8),
        "bias": bias,
        "scale": np.float32(0.25),
        "zero_point": np.uint8(130),
    }
    node = helper.make_node("QGemm", ["image", *constants], ["result"], domain="com.microsoft")
    sums = (vector.astype(np.int64) - 120) @ weight.astype(np.int64) + bias
    expected = np.clip(np.rint(sums * scales * 2.0) + 130, 0, 255)
    found = run_on_bytes([node], vector, constants)
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 50


def run_on_bytes(nodes: list[onnx.NodeProto], image: NDArray[np.uint8], constants: Constants) -> NDArray[np.generic]:
    """Run nodes that compute ``result`` from ``image``, both of bytes."""
    graph = helper.make_graph(
        nodes,
        "bytes",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, image.shape)],
        [helper.make_tensor_value_info("result", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    (result,) = run_by_onnxruntime(helper.make_model(graph, opset_imports=opsets, ir_version=10), {"image": image})
    return result


def test_weight_scales_may_be_computed_and_negative() -> None:
    """ONNX Runtime 1.21 to 1.28 ignores a bias that is no constant, but computes with such scales exactly."""
    random = np.random.default_rng(2)
    for groups, size in ((1, 3), (1, 1), (32, 1)):
        constants: dict[str, NDArray[np.generic] | np.generic] = {
            "image_scale": np.float32(0.7),
            "image_zero_point": np.uint8(9),
            "weight": random.integers(-64, 65, (32, 32 // groups, size, size), dtype=np.int8),
            "weight_zero_point": np.zeros(32, np.int8),
            "scale": np.float32(50 * size * (32 // groups) ** 0.5),
            "zero_point": np.uint8(100),
            "bias": random.integers(-2000, 2000, 32, dtype=np.int32),
        }
        order = [*list(constants)[:3], "weight_scale", *list(constants)[3:]]
        node = helper.make_node(
            "QLinearConv",
            ["image", *order],
            ["result"],
            domain="com.microsoft",
            channels_last=1,
            group=groups,
            kernel_shape=[size, size],
            pads=[size // 2] * 4,
            strides=[1, 1],
        )
        model = helper.make_model(
            helper.make_graph(
                [node],
                "scales",
                [
                    helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 8, 12, 32]),
                    helper.make_tensor_value_info("weight_scale", TensorProto.FLOAT, [32]),
                ],
                [helper.make_tensor_value_info("result", TensorProto.UINT8, None)],
                [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
            ),
            opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)],
            ir_version=10,
        )
        image = random.integers(0, 256, (1, 8, 12, 32), dtype=np.uint8)
        scale = random.uniform(-1.5, 1.5, 32).astype(np.float32)
        scale[0] = 0.0
        found = check_plain_integers(model, {"image": image, "weight_scale": scale})["result"]
        assert np.all(found[..., 0] == 100)
        assert len(np.unique(found)) > 100
