"""What an int8 graph computes from the condition: near float64, and the same bits however its terms are added."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph import INT8_PASSES, apply_passes
from export.inference import draw_feeds
from export.int8 import OutputRange, calibrate, measure_means, quantize_graph
from export.int8.builder import GraphBuilder
from export.int8.conditions import Conditions
from export.torch_graph import export_to_onnx
from tests.tiny_ieagan import TINY_VARIANTS, describe_variant, export_tiny_ieagan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from export.families import Family, Feed

N_INPUTS: Final = 256
N_OUTPUTS: Final = 500
FLOAT32_SUMS: Final = frozenset({"Gemm", "MatMul", "LayerNormalization", "Softmax", "ReduceMean"})


def run(model: onnx.ModelProto, feeds: Sequence[Feed], *, prepacks: bool = True) -> list[NDArray[np.float32]]:
    """Run a graph; weights that are not prepacked are multiplied by other kernels, which add in another order."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "0" if prepacks else "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, feed)[0]) for feed in feeds]


def float32_layer(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["condition", "weight", "bias"], ["factors"], transB=1)],
        "layer",
        [helper.make_tensor_value_info("condition", TensorProto.FLOAT, ["n", N_INPUTS])],
        [helper.make_tensor_value_info("factors", TensorProto.FLOAT, ["n", len(weight)])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def exact_layer(weight: NDArray[np.float32], bias: NDArray[np.float32], largest: float) -> onnx.ModelProto:
    old = float32_layer(weight, bias)
    builder = GraphBuilder(old.graph.input, old.graph.output, opset=20)
    nodes = {node.output[0]: node for node in old.graph.node}
    conditions = Conditions(builder, nodes, {"condition": (-largest / 2, largest)})
    (factors,) = ir.from_proto(old).graph.outputs
    assert conditions.add(factors) == conditions.add(factors) == "factors"
    model = builder.build("exact")
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("n_images", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_a_linear_layer_is_near_that_of_float64(n_images: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    weight = (random.normal(size=(N_OUTPUTS, N_INPUTS)) * random.uniform(1e-3, 10, (N_OUTPUTS, 1))).astype(np.float32)
    weight[7], bias = 0, random.normal(size=N_OUTPUTS).astype(np.float32)
    condition = random.normal(size=(n_images, N_INPUTS)).astype(np.float32)
    model = exact_layer(weight, bias, float(np.abs(condition).max()))
    (found,) = run(model, [{"condition": condition}])
    exact = condition.astype(np.float64) @ weight.T.astype(np.float64)
    scale = np.sqrt((weight.astype(np.float64) ** 2).sum(axis=1))
    assert np.all(np.abs(found - bias - exact) <= 1e-3 * scale + 1e-6)
    assert np.array_equal(found[:, 7], np.broadcast_to(bias[7], n_images))
    (alone,) = run(model, [{"condition": condition[-1:]}])
    assert np.array_equal(alone[0], found[-1])


def test_the_order_of_the_terms_changes_no_bit() -> None:
    """In float32 it changes the last places of most sums."""
    random = np.random.default_rng(4)
    weight = random.normal(size=(N_OUTPUTS, N_INPUTS)).astype(np.float32)
    bias, order = np.zeros(N_OUTPUTS, np.float32), random.permutation(N_INPUTS)
    condition = random.normal(size=(2, N_INPUTS)).astype(np.float32)
    feeds: list[Feed] = [{"condition": condition}, {"condition": condition[:, order]}]
    (plain,), (moved,) = (
        run(float32_layer(each, bias), [feed])
        for each, feed in zip((weight, np.ascontiguousarray(weight[:, order])), feeds, strict=True)
    )
    assert np.mean(plain != moved) > 0.5
    (plain,), (moved,) = (
        run(exact_layer(each, bias, 4.0), [feed])
        for each, feed in zip((weight, np.ascontiguousarray(weight[:, order])), feeds, strict=True)
    )
    assert np.array_equal(plain, moved)


def test_a_condition_far_beyond_the_calibration_becomes_the_end_of_the_range() -> None:
    weight = np.eye(N_INPUTS, dtype=np.float32)
    condition = np.linspace(-5, 5, N_INPUTS, dtype=np.float32)[np.newaxis]
    (found,) = run(exact_layer(weight, np.zeros(N_INPUTS, np.float32), 1.0), [{"condition": condition}])
    assert found == pytest.approx(np.clip(condition, -2, 2), abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", TINY_VARIANTS, ids=describe_variant)
def test_images_do_not_depend_on_how_onnx_runtime_adds(family: Family) -> None:
    """As sums of float32 products, the factors differed here and there, and with them the levels."""
    export = export_tiny_ieagan(TINY_VARIANTS.index(family), 1)
    plain = export_to_onnx(copy.deepcopy(export.model).fold(), family)
    simple, _ = apply_passes(plain, INT8_PASSES)
    feeds = draw_feeds(family, -1, 3)
    ranges, means = calibrate(simple, feeds), measure_means(simple, feeds)
    model = quantize_graph(simple, ranges, OutputRange(low=-1.5, high=1.5), 7, means)
    for node in model.graph.node:
        assert node.op_type not in FLOAT32_SUMS or node.input[0].endswith(".float64")
    names = {value.name for value in model.graph.input}
    taken: list[Feed] = [{name: value for name, value in feed.items() if name in names} for feed in feeds]
    for found, again in zip(run(model, taken), run(model, taken, prepacks=False), strict=True):
        assert np.ptp(found) > 0.1
        assert np.array_equal(found, again)
