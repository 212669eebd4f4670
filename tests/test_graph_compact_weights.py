"""Weights of few different values: stored in one byte each, restored bit for bit by ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph import count_multiply_accumulates, store_compactly


def build_product(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> onnx.ModelProto:
    size = weight.shape[0]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return bytes(np.asarray(y).tobytes())


@pytest.mark.parametrize("n_values", [1, 2, 256])
def test_few_values_take_a_byte_each_and_give_the_same_numbers(n_values: int) -> None:
    rng = np.random.default_rng(n_values)
    values = np.concatenate([[-0.0], rng.standard_normal(n_values - 1)]).astype(np.float32)
    weight = rng.choice(values, (500, 600))
    plain = build_product(weight)
    compact = store_compactly(plain)
    onnx.checker.check_model(compact, full_check=True)
    assert compact.ByteSize() < 0.26 * plain.ByteSize()
    x = rng.standard_normal((3, 500)).astype(np.float32)
    assert run(compact, x) == run(plain, x)


def test_the_table_keeps_the_sign_of_zero() -> None:
    weight = np.tile(np.array([0.0, -0.0], np.float32), (500, 300))
    tensors = {
        each.name: numpy_helper.to_array(each) for each in store_compactly(build_product(weight)).graph.initializer
    }
    restored = tensors["weight.table"][tensors["weight.indices"]]
    assert restored.tobytes() == weight.tobytes()


@pytest.mark.parametrize(("n_values", "size"), [(257, 600), (2, 300)])
def test_many_values_and_small_weights_stay(n_values: int, size: int) -> None:
    values = np.arange(n_values, dtype=np.float32)
    weight = np.resize(values, (500, size))
    plain = build_product(weight)
    assert store_compactly(plain) == plain


def test_weights_in_the_body_of_a_node_are_stored_too() -> None:
    inner = build_product(np.ones((500, 600), np.float32)).graph
    inner.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 500]))
    node = helper.make_node("Scan", ["xs"], ["ys"], body=inner, num_scan_inputs=1)
    graph = helper.make_graph(
        [node],
        "loop",
        [helper.make_tensor_value_info("xs", TensorProto.FLOAT, ["n", 1, 500])],
        [helper.make_tensor_value_info("ys", TensorProto.FLOAT, ["n", 1, 600])],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    compact = store_compactly(plain)
    assert compact.ByteSize() < 0.26 * plain.ByteSize()
    xs = np.random.default_rng(0).standard_normal((2, 1, 500)).astype(np.float32)
    session = onnxruntime.InferenceSession(compact.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"xs": xs})[0][..., 0], xs.sum(-1), rtol=1e-4)


def test_the_arithmetic_of_a_compact_graph_is_that_of_the_plain_one() -> None:
    plain = build_product(np.zeros((500, 600), dtype=np.float32))
    assert count_multiply_accumulates(store_compactly(plain)) == count_multiply_accumulates(plain) == 500 * 600
