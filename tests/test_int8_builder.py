"""The builder of int8 graphs: unique constants, shapes of all values, both domains."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.block_weights import BlockWeights
from export.int8.builder import GraphBuilder, QuantImage
from export.int8.weights import QuantParams

INPUT: Final = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 2, 4, 3])
OUTPUT: Final = helper.make_tensor_value_info("result", TensorProto.UINT8, ["n", 2, 4, 5])
PARAMS: Final = QuantParams(scale=0.5, zero_point=10)


def test_a_constant_may_be_added_again_but_not_changed() -> None:
    graph = GraphBuilder([INPUT], [OUTPUT], 18)
    assert graph.add_constant(np.float32(0.5), "half") == "half"
    assert graph.add_constant(np.float32(0.5), "half") == "half"
    with pytest.raises(ValueError, match="two constants are called half"):
        graph.add_constant(np.float32(0.25), "half")
    with pytest.raises(ValueError, match="two constants are called half"):
        graph.add_constant(np.float64(0.5), "half")
    assert [tensor.name for tensor in graph.build("g").graph.initializer] == ["half"]


def test_a_convolution_has_its_params_and_its_shape() -> None:
    graph = GraphBuilder([INPUT], [OUTPUT], 18)
    weights = BlockWeights(weight=np.ones((5, 3, 1, 1), np.float32), pads=(0, 0, 0, 0), strides=(1, 1))
    image, middle = (
        QuantImage(name=name, params=PARAMS, height=2, width=4, channels=channels)
        for name, channels in (("image", 3), ("middle", 5))
    )
    assert graph.add_convolution(image, weights, np.ones(5), middle) == "middle"
    graph.add_reshape("middle", middle.shape, "result")
    model = graph.build("g")
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18, "com.microsoft": 1}
    # What goes in and out has its shape there.
    (value,) = model.graph.value_info
    assert (value.name, value.type.tensor_type.elem_type) == ("middle", TensorProto.UINT8)
    assert [axis.dim_value for axis in value.type.tensor_type.shape.dim] == [0, 2, 4, 5]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in ("middle.input", "middle"):
        assert float(constants[f"{name}.scale"]) == 0.5
        assert int(constants[f"{name}.zero_point"]) == 10
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": np.full((1, 2, 4, 3), 20, np.uint8)})
    # Three channels of ten levels of a half each, and one: 16, in halves above the tenth level.
    assert np.array_equal(np.asarray(found), np.full((1, 2, 4, 5), 42, np.uint8))


def test_a_copied_node_takes_other_inputs() -> None:
    graph = GraphBuilder([INPUT], [OUTPUT], 18)
    node = helper.make_node("Transpose", ["before"], ["result"], perm=[0, 1, 3, 2])
    graph.copy_node(node, ["image"])
    (copied,) = graph.build("g").graph.node
    assert (list(copied.input), list(copied.output), copied.attribute) == (["image"], ["result"], node.attribute)
    assert list(node.input) == ["before"]
