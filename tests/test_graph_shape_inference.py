"""Shape inference: as onnx_ir's own pass, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnx_ir.passes import common as common_passes

from export.graph import Pass, run_passes
from export.graph.compiler import list_passes
from export.graph.image_by_image import compute_image_by_image
from export.graph.shape_inference import infer_shapes
from tests.small_graphs import (
    FEW,
    SEEDS,
    SmallGraph,
    conditional_generator,
    plain_generator,
    read_initializers,
    residual_generator,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx


def infer_by_onnx_ir(model: ir.Model) -> None:
    common_passes.ShapeInferencePass(check_type=True, strict_mode=False, data_prop=True)(model)


def check_same(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Check that a model without shapes gets the same bytes by both, and that a model with shapes keeps them."""
    found, expected = ir.from_proto(proto), ir.from_proto(proto)
    infer_shapes(found)
    infer_by_onnx_ir(expected)
    inferred = ir.to_proto(found)
    assert inferred.SerializeToString() == ir.to_proto(expected).SerializeToString()
    assert all(each.const_value is not None for each in found.graph.initializers.values())
    return inferred


@pytest.mark.parametrize("write", [plain_generator, residual_generator, conditional_generator])
@FEW
@given(seed=SEEDS, channels=st.lists(st.integers(1, 6), min_size=2, max_size=3), forgets=st.booleans())
def test_graphs_have_the_bytes_of_onnx_irs_pass(
    write: Callable[..., onnx.ModelProto], seed: int, channels: list[int], forgets: bool
) -> None:
    model = write(SmallGraph(seed, whole=False), 3, channels)
    if forgets:
        del model.graph.value_info[:]
        model.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = check_same(model)
    known = {each.name for each in inferred.graph.value_info}
    assert known >= {each.output[0] for each in model.graph.node[:-1]}


def test_bodies_of_nodes_have_shapes_too() -> None:
    model = conditional_generator(SmallGraph(whole=False), 3, (6, 5))
    *_, looped = run_passes(model, "cpu", (*list_passes("cpu")[:-1], Pass(name="last", apply=compute_image_by_image)))
    assert looped.n_changes
    scans = [node for node in looped.model.graph.node if node.op_type == "Scan"]
    assert scans
    for node in scans:
        for attribute in node.attribute:
            del attribute.g.value_info[:]
    check_same(looped.model)


def test_large_weights_come_last_and_are_those_that_were_given() -> None:
    graph = SmallGraph(whole=False)
    graph.linear(graph.input(40), 40, 30)
    model = graph.model()
    inferred = check_same(model)
    assert [len(each.raw_data) > 1000 for each in inferred.graph.initializer] == [False, True]
    expected, found = read_initializers(model), read_initializers(inferred)
    assert all(np.array_equal(found[name], values) for name, values in expected.items())


def test_types_that_contradict_each_other_stay(caplog: pytest.LogCaptureFixture) -> None:
    graph = SmallGraph()
    graph.node("Add", graph.input(3), graph.input(3, name="whole"))
    model = graph.model()
    model.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    inferred = check_same(model)
    assert inferred.graph.input == model.graph.input
    assert "no shapes were inferred: [ShapeInferenceError] (op_type:Add): B has inconsistent type" in caplog.text
