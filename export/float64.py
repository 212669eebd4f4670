"""Evaluates a float32 graph in float64.

Its images then differ from those of the model by the rounding of its weights alone, and are the same on every machine.
onnx's reference implementation evaluates the graph, with the convolution of `export.convolution`: that of onnx is many
times slower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops import op_conv, op_resize
from torch.nn import functional

from export.convolution import convolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from export.families import Feed

__all__ = ["compute_exact_images"]

_IMAGE_AXES: Final = 4


class Conv(op_conv.Conv):
    """A convolution of images by `export.convolution`; any other by onnx."""

    def _run(self, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401
        images, weight, bias = (*inputs, None)[:3]
        if images.ndim != _IMAGE_AXES or options["auto_pad"] not in {None, "NOTSET"}:
            return super()._run(*inputs, **options)  # type: ignore[no-untyped-call]
        top, left, bottom, right = options["pads"] or (0, 0, 0, 0)
        convolved = convolve(
            functional.pad(_to_tensor(images), (left, right, top, bottom)),
            _to_tensor(weight),
            None if bias is None else _to_tensor(bias),
            stride=tuple(options["strides"] or (1, 1)),
            dilation=tuple(options["dilations"] or (1, 1)),
            groups=options["group"] or 1,
        )
        return (convolved.numpy(),)


class Resize(op_resize.Resize):
    """The nearest upsampling by whole numbers that PyTorch's exporter writes, by NumPy; any other by onnx."""

    def _run(self, *inputs: Any, **options: Any) -> Any:  # noqa: ANN401
        images, _, scales = (*inputs, None, None)[:3]
        rule = (options["mode"], options["coordinate_transformation_mode"], options["nearest_mode"])
        factors: list[float] = [] if scales is None else scales.tolist()
        is_whole = len(factors) == images.ndim and all(each >= 1 and each == int(each) for each in factors)
        if rule != ("nearest", "asymmetric", "floor") or not is_whole:
            return super()._run(*inputs, **options)
        for axis, factor in enumerate(factors):
            images = images if factor == 1 else images.repeat(int(factor), axis=axis)
        return (images,)


def compute_exact_images(graph: onnx.ModelProto, feeds: Sequence[Feed]) -> NDArray[np.float64]:
    """Compute the images of a float32 graph of one output in float64."""
    widened = onnx.ModelProto()
    widened.CopyFrom(graph)
    _widen(widened.graph)
    evaluator = ReferenceEvaluator(widened, new_ops=[Conv, Resize])
    images = []
    for feed in feeds:
        (found,) = evaluator.run(None, {name: _widen_array(each) for name, each in feed.items()})
        images.append(found)
    return np.concatenate(images)


def _to_tensor(values: NDArray[Any]) -> torch.Tensor:
    """Share an array with PyTorch; copy one that cannot be written to, as constants of a graph."""
    return torch.from_numpy(np.require(values, requirements="W"))


def _widen(graph: GraphProto) -> None:
    """Turn the float32 constants, inputs, outputs and casts of a graph and of its bodies into float64."""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _widen(attribute.g)
            elif attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT):
                attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def _widen_array(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float64) if values.dtype == np.float32 else values
