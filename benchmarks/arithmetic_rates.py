"""The arithmetic that this machine reaches on one thread: large matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.environment import check_installed
from benchmarks.timing import Run, time_run
from pxdbg_runtime.model.card import Precision

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import NodeProto

    Array = NDArray[np.generic]

_SIZE: Final = 1024
_CHANNELS: Final = 128
_IMAGE: Final = (64, 96)
_REPEATS: Final = 10
INT8_GAIN: Final = 4
"""Products of 8 bits for one of 32 bits in the same registers."""

_BLAS: Final = "BLAS matrix product"
_MATMUL: Final = "ONNX Runtime's MatMul"
_CONV: Final = "ONNX Runtime's Conv, 3 x 3"
_FOUR_TIMES: Final = "four times the BLAS matrix product in float32"
_INT8_MATMUL: Final = "ONNX Runtime's MatMulInteger"
_INT8_CONV: Final = "ONNX Runtime's QLinearConv, 3 x 3, channels last"


def prepare_rate(name: str) -> Run:
    """Prepare the measurement of one of `RATES`, in 10^9 products a second."""
    n_products, work = _WORKS[name]()
    run = time_run(work)
    # The fastest of several: a floor is what the machine can do.
    return lambda: (n_products / min(run()[0] for _ in range(_REPEATS)) / 1e9,)


def _prepare_blas(gain: int = 1) -> tuple[float, Callable[[], object]]:
    check_installed("threadpoolctl")
    from threadpoolctl import ThreadpoolController

    left, right, output = (np.ones((_SIZE, _SIZE), dtype=np.float32) for _ in range(3))
    controller = ThreadpoolController()

    def multiply() -> None:
        # NumPy's BLAS started its threads when it was loaded, so binding this thread to a core does not bind them.
        with controller.limit(limits=1, user_api="blas"):
            np.matmul(left, right, out=output)

    return gain * float(_SIZE) ** 3, multiply


def _prepare_matmul() -> tuple[float, Callable[[], object]]:
    from onnx import helper

    matrix = np.ones((_SIZE, _SIZE), dtype=np.float32)
    return float(_SIZE) ** 3, _run_node(helper.make_node("MatMul", ["x", "weight"], ["y"]), matrix, {"weight": matrix})


def _prepare_int8_matmul() -> tuple[float, Callable[[], object]]:
    from onnx import helper

    node = helper.make_node("MatMulInteger", ["x", "weight"], ["y"])
    matrix = np.ones((_SIZE, _SIZE), dtype=np.uint8)
    return float(_SIZE) ** 3, _run_node(node, matrix, {"weight": matrix.astype(np.int8)})


def _prepare_conv() -> tuple[float, Callable[[], object]]:
    from onnx import helper

    weight = np.ones((_CHANNELS, _CHANNELS, 3, 3), dtype=np.float32)
    node = helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1] * 4)
    image = np.ones((1, _CHANNELS, *_IMAGE), dtype=np.float32)
    return float(weight.size) * math.prod(_IMAGE), _run_node(node, image, {"weight": weight})


def _prepare_int8_conv() -> tuple[float, Callable[[], object]]:
    from onnx import helper

    weight = np.ones((_CHANNELS, _CHANNELS, 3, 3), dtype=np.int8)
    one, zero = np.float32(1), np.uint8(0)
    constants: dict[str, Array] = {
        "x_scale": np.array(one),
        "x_zero": np.array(zero),
        "weight": weight,
        "weight_scale": np.full(_CHANNELS, one),
        "weight_zero": np.zeros(_CHANNELS, dtype=np.int8),
        "y_scale": np.array(np.float32(_CHANNELS)),
        "y_zero": np.array(zero),
        "bias": np.zeros(_CHANNELS, dtype=np.int32),
    }
    inputs = ["x", *constants]
    node = helper.make_node("QLinearConv", inputs, ["y"], domain="com.microsoft", channels_last=1, pads=[1] * 4)
    image = np.ones((1, *_IMAGE, _CHANNELS), dtype=np.uint8)
    return float(weight.size) * math.prod(_IMAGE), _run_node(node, image, constants)


def _run_node(node: NodeProto, value: Array, constants: Mapping[str, Array]) -> Callable[[], object]:
    """Create a session of one node whose other inputs are constants."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.uint8): TensorProto.UINT8}
    output = {"MatMulInteger": TensorProto.INT32}.get(node.op_type, kinds[value.dtype])
    graph = helper.make_graph(
        [node],
        "rate",
        [helper.make_tensor_value_info("x", kinds[value.dtype], value.shape)],
        [helper.make_tensor_value_info("y", output, None)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": value})


_WORKS: Final[Mapping[str, Callable[[], tuple[float, Callable[[], object]]]]] = {
    _BLAS: _prepare_blas,
    _MATMUL: _prepare_matmul,
    _CONV: _prepare_conv,
    _FOUR_TIMES: lambda: _prepare_blas(INT8_GAIN),
    _INT8_MATMUL: _prepare_int8_matmul,
    _INT8_CONV: _prepare_int8_conv,
}
RATES: Final[Mapping[Precision, tuple[str, ...]]] = {
    "float32": (_BLAS, _MATMUL, _CONV),
    "int8": (_FOUR_TIMES, _INT8_MATMUL, _INT8_CONV),
}
"""What is measured for the floor of each precision."""
