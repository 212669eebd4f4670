"""What an int8 graph computes from the condition: near float64, and the same bits however its terms are added."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.int8.builder import GraphBuilder
from export.int8.conditions import Conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from export.families import Feed

N_INPUTS: Final = 256
N_OUTPUTS: Final = 500


def run(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
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


def relation(order: NDArray[np.int64]) -> onnx.ModelProto:
    """Relate rows to each other, by attention over inputs in any order."""
    random = np.random.default_rng(5)
    weight = random.normal(size=(N_INPUTS, N_OUTPUTS)).astype(np.float32) / 16
    constants: dict[str, NDArray[np.generic]] = {
        "weight": weight[order],
        "ones": np.ones(N_OUTPUTS, np.float32),
        "first": np.array([0, 1], np.int64),
    }
    nodes = [
        helper.make_node("Gemm", ["condition", "weight"], ["rows"]),
        helper.make_node("LayerNormalization", ["rows", "ones"], ["normed"]),
        helper.make_node("Transpose", ["normed"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["normed", "columns"], ["products"]),
        helper.make_node("Softmax", ["products"], ["shares"]),
        helper.make_node("MatMul", ["shares", "rows"], ["related"]),
        helper.make_node("Gather", ["related", "first"], ["factors"]),
    ]
    graph = helper.make_graph(
        nodes,
        "relation",
        [helper.make_tensor_value_info("condition", TensorProto.FLOAT, [9, N_INPUTS])],
        [helper.make_tensor_value_info("factors", TensorProto.FLOAT, [2, N_OUTPUTS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def exact_relation(order: NDArray[np.int64]) -> onnx.ModelProto:
    old = relation(order)
    builder = GraphBuilder(old.graph.input, old.graph.output, opset=20)
    conditions = Conditions(builder, {node.output[0]: node for node in old.graph.node}, {})
    (factors,) = ir.from_proto(old).graph.outputs
    conditions.add(factors)
    return builder.build("exact")


def test_what_relates_the_sensors_is_computed_in_float64() -> None:
    condition = np.random.default_rng(6).normal(size=(9, N_INPUTS)).astype(np.float32)
    order = np.random.default_rng(7).permutation(N_INPUTS)
    plain, exact = (
        [
            run(build(each), [{"condition": np.ascontiguousarray(condition[:, each])}])[0]
            for each in (np.arange(N_INPUTS), order)
        ]
        for build in (relation, exact_relation)
    )
    assert np.mean(plain[0] != plain[1]) > 0.5
    assert np.array_equal(exact[0], exact[1])
    assert exact[0] == pytest.approx(plain[0], rel=1e-4, abs=1e-4)
    assert exact[0].dtype == np.float32
