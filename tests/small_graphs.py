"""Small random ONNX graphs before and after passes, run by ONNX's reference evaluator and by ONNX Runtime.

With whole numbers for weights and inputs every sum in a graph is exact, whatever the order of its terms: a rewriting
that only moves products and sums must then give the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.graph.compiler import Pass, run_passes
from pxdbg_runtime.inference.providers import CPU, import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from _pytest.mark.structures import ParameterSet
    from numpy.typing import NDArray

__all__ = [
    "BATCHES",
    "CHANNELS",
    "COPYING_MODES",
    "FEW",
    "KERNELS",
    "OPSET",
    "SEEDS",
    "SIZES",
    "Pads",
    "Rewriting",
    "SmallGraph",
    "apply_pass",
    "assert_close",
    "assert_same_function",
    "cases",
    "check_untouched",
    "conditional_generator",
    "draw_pads",
    "evaluate",
    "find_same_pads",
    "list_operators",
    "plain_generator",
    "read_initializers",
    "residual_generator",
    "run_by_onnxruntime",
]

OPSET: Final = 18
IR_VERSION: Final = 10
FLOAT32_ROUNDING: Final = 1e-5
"""Bound on the sum of some hundred roundings to float32, relative to the largest value."""
_BATCH: Final = 97
"""The batch during shape inference; no other axis has this size."""

FEW: Final = settings(max_examples=25)
"""Few examples: each graph takes some milliseconds."""
SEEDS: Final = st.integers(0, 2**32 - 1)
BATCHES: Final = st.integers(1, 3)
CHANNELS: Final = st.integers(1, 5)
SIZES: Final = st.tuples(st.integers(1, 4), st.integers(1, 6))
KERNELS: Final = st.tuples(st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 3, 5, 7]))
COPYING_MODES: Final = (
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
)
"""Attributes of Resize with which nearest upsampling by 2 copies each pixel to 2 x 2 pixels."""

Pads = tuple[int, int, int, int]
Writer = Callable[["SmallGraph"], onnx.ModelProto]
Attribute = float | str | onnx.TensorProto | list[int] | tuple[int, ...]


def find_same_pads(kernel: tuple[int, int]) -> Pads:
    """Find the symmetric pads with which a convolution of an odd kernel keeps the size of its image."""
    height, width = kernel
    return height // 2, width // 2, height // 2, width // 2


def draw_pads(kernel: tuple[int, int]) -> st.SearchStrategy[Pads]:
    """Draw pads, symmetric or not, with which a convolution keeps the size of its image."""
    height, width = kernel
    before = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
    return before.map(lambda each: (each[0], each[1], height - 1 - each[0], width - 1 - each[1]))


class SmallGraph:
    """A graph under construction, node by node.

    Parameters
    ----------
    seed : int
        Of the weights and the inputs.
    whole : bool
        Whether weights and inputs are small whole numbers.
    """

    def __init__(self, seed: int = 0, *, whole: bool = True) -> None:
        self.random = np.random.default_rng(seed)
        self.whole = whole
        self.nodes: list[onnx.NodeProto] = []
        self._inputs: dict[str, tuple[int | str, ...]] = {}
        self._constants: dict[str, NDArray[Any]] = {}

    def filters(self, *shape: int) -> NDArray[np.float32]:
        """Draw filters; those that are not whole keep the scale of the image."""
        values = self.values(*shape)
        return values if self.whole else values / np.float32(np.sqrt(values[0].size))

    def values(self, *shape: int) -> NDArray[np.float32]:
        """Draw whole numbers from -3 to 3, or normal numbers."""
        if self.whole:
            return self.random.integers(-3, 4, shape).astype(np.float32)
        return self.random.normal(size=shape).astype(np.float32)

    def input(self, *shape: int | str, name: str = "z") -> str:
        """Add an input of this shape and any batch."""
        self._inputs[name] = shape
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Add an initializer."""
        name = f"c{len(self._constants)}"
        self._constants[name] = values
        return name

    def node(self, operator: str, *inputs: str, **attributes: Attribute) -> str:
        """Add a node of one output, named as PyTorch's exporter does."""
        name = f"val_{len(self.nodes)}"
        node = helper.make_node(operator, inputs, [name])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return name

    def conv(
        self,
        image: str,
        n_in: int,
        n_out: int,
        kernel: tuple[int, int] = (3, 3),
        *,
        bias: bool = True,
        pads: Pads | None = None,
        **attributes: Attribute,
    ) -> str:
        """Add a convolution that keeps the image's size unless pads are given; `n_in` is that of a group."""
        constants = [self.constant(self.filters(n_out, n_in, *kernel))]
        if bias:
            constants.append(self.constant(self.values(n_out)))
        return self.node("Conv", image, *constants, pads=find_same_pads(kernel) if pads is None else pads, **attributes)

    def linear(self, flat: str, n_in: int, n_out: int, *, is_transposed: bool = True, bias: bool = True) -> str:
        """Add a linear layer."""
        constants = [self.constant(self.values(n_out, n_in) if is_transposed else self.values(n_in, n_out))]
        if bias:
            constants.append(self.constant(self.values(n_out)))
        return self.node("Gemm", flat, *constants, transB=int(is_transposed))

    def reshape(self, value: str, *axes: int) -> str:
        """Add a Reshape."""
        return self.node("Reshape", value, self.constant(np.array(axes, np.int64)))

    def slice(self, value: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """Add a Slice along one axis."""
        return self.node("Slice", value, *(self.constant(np.array([each])) for each in (start, end, axis, step)))

    def batch_norm(
        self,
        image: str,
        n_channels: int,
        *,
        gamma: NDArray[np.float64] | None = None,
        beta: NDArray[np.float64] | None = None,
        **attributes: Attribute,
    ) -> str:
        """Add a batch norm of inference; factors and offsets are random unless given."""
        signs = self.random.choice([-1, 1], n_channels)
        parameters = (
            self.random.uniform(0.5, 1.5, n_channels) * signs if gamma is None else gamma,
            self.random.normal(size=n_channels) if beta is None else beta,
            self.random.normal(size=n_channels),
            self.random.uniform(0.5, 2, n_channels),
        )
        constants = [self.constant(each.astype(np.float32)) for each in parameters]
        return self.node("BatchNormalization", image, *constants, **attributes)

    def conditional_norm(self, image: str, condition: str, n_conditions: int, n_channels: int) -> str:
        """Add a batch norm whose factor, one plus a product, and offset are linear in a condition."""
        gain, offset = (
            self.node("Gemm", condition, self.constant(self.filters(n_channels, n_conditions) / 2), transB=1)
            for _ in range(2)
        )
        axes = self.constant(np.array([2, 3], np.int64))
        factor = self.node("Unsqueeze", self.node("Add", gain, self.constant(np.array(1, np.float32))), axes)
        return self.node("Add", self.node("Mul", image, factor), self.node("Unsqueeze", offset, axes))

    def upsample(self, image: str, scales: Sequence[float] = (1, 1, 2, 2), /, **attributes: Attribute) -> str:
        """Add a Resize, by default nearest upsampling by 2 as PyTorch exports it."""
        given = self.constant(np.array(scales, np.float32))
        return self.node("Resize", image, "", given, **{"mode": "nearest", **COPYING_MODES[0], **attributes})

    def feeds(self, batch: int) -> dict[str, NDArray[np.float32]]:
        """Draw inputs of a batch."""
        return {
            name: self.values(batch, *(axis for axis in shape if isinstance(axis, int)))
            for name, shape in self._inputs.items()
        }

    def model(self, *outputs: str) -> onnx.ModelProto:
        """Build a model with these outputs, by default the last value.

        Its batch is dynamic and called n in every value, as PyTorch's exporter calls it.
        """
        given_out = outputs or (self.nodes[-1].output[0],)
        graph = helper.make_graph(
            self.nodes,
            "small",
            [_information(name, (_BATCH, *shape)) for name, shape in self._inputs.items()],
            [_information(name, None) for name in given_out],
            [numpy_helper.from_array(values, name) for name, values in self._constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        for value in (*known.input, *known.output, *known.value_info):
            _name_batch(value)
        model.graph.ClearField("input")
        model.graph.ClearField("output")
        model.graph.input.extend(known.input)
        model.graph.output.extend(known.output)
        model.graph.value_info.extend(known.value_info)
        return model


def _information(name: str, shape: Sequence[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _name_batch(value: onnx.ValueInfoProto) -> None:
    axes = value.type.tensor_type.shape.dim
    if len(axes) and axes[0].dim_value == _BATCH:
        axes[0].dim_param = "n"


def plain_generator(
    graph: SmallGraph, n_latents: int, channels: Sequence[int], kernel: tuple[int, int] = (3, 3)
) -> onnx.ModelProto:
    """Write a generator: a linear layer, and for each number of channels an upsampling, a convolution and a Relu.

    Its images, 2 x 3 pixels before the first doubling, are cropped by a row.
    """
    first = channels[0]
    image = graph.reshape(graph.linear(graph.input(n_latents), n_latents, 6 * first), -1, first, 2, 3)
    image = graph.node("Relu", graph.conv(image, first, first))
    for n_in, n_out in itertools.pairwise(channels):
        image = graph.node("Relu", graph.batch_norm(graph.conv(graph.upsample(image), n_in, n_out, kernel), n_out))
    return _finish(graph, image, channels)


def residual_generator(
    graph: SmallGraph, n_latents: int, channels: Sequence[int], kernel: tuple[int, int] = (3, 3)
) -> onnx.ModelProto:
    """Write a generator of pre-activation residual blocks with upsampling, otherwise like `plain_generator`."""
    first = channels[0]
    image = graph.reshape(graph.linear(graph.input(n_latents), n_latents, 6 * first), -1, first, 2, 3)
    for n_in, n_out in itertools.pairwise(channels):
        main = graph.upsample(graph.node("Relu", graph.batch_norm(image, n_in)))
        main = graph.node("Relu", graph.batch_norm(graph.conv(main, n_in, n_out, kernel), n_out))
        shortcut = graph.conv(graph.upsample(image), n_in, n_out, (1, 1))
        image = graph.node("Add", graph.conv(main, n_out, n_out, kernel), shortcut)
    return _finish(graph, graph.node("Relu", graph.batch_norm(image, channels[-1])), channels)


def conditional_generator(
    graph: SmallGraph, n_latents: int, channels: Sequence[int], kernel: tuple[int, int] = (3, 3)
) -> onnx.ModelProto:
    """Write a generator of conditional residual blocks with upsampling, whose skips take the first channels.

    The condition is a row of a table, beside the latents.
    """
    latents, index = graph.input(n_latents), graph.node("Cast", graph.input(name="index"), to=TensorProto.INT64)
    rows = graph.node("Gather", graph.constant(graph.filters(4, 6)), index)
    condition, n_conditions = graph.node("Concat", rows, latents, axis=1), n_latents + 6
    first = channels[0]
    image = graph.reshape(graph.linear(condition, n_conditions, 6 * first), -1, first, 2, 3)
    for n_in, n_out in itertools.pairwise(channels):
        main = graph.batch_norm(image, n_in)
        main = graph.node("Relu", graph.conditional_norm(main, condition, n_conditions, n_in))
        main = graph.conv(main, n_in, n_in, (1, 1))
        main = graph.node("Relu", graph.conditional_norm(main, condition, n_conditions, n_in))
        main = graph.conv(graph.upsample(main), n_in, n_in, kernel)
        main = graph.node("Relu", graph.conditional_norm(main, condition, n_conditions, n_in))
        main = graph.conv(main, n_in, n_in, kernel, bias=False)
        main = graph.node("Relu", graph.conditional_norm(main, condition, n_conditions, n_in))
        skip = graph.upsample(graph.slice(image, 0, n_out, 1) if n_out < n_in else image)
        if n_out > n_in:
            skip = graph.conv(skip, n_in, n_out, (1, 1))
        image = graph.node("Add", graph.conv(main, n_in, n_out, (1, 1)), skip)
    return _finish(graph, graph.node("Relu", graph.batch_norm(image, channels[-1])), channels)


def _finish(graph: SmallGraph, image: str, channels: Sequence[int]) -> onnx.ModelProto:
    whole = graph.node("Tanh", graph.conv(image, channels[-1], 1))
    cropped = graph.slice(whole, 0, 2 ** len(channels) - 1, 2)
    graph.node("Gather", cropped, graph.constant(np.array(0)), axis=1)
    return graph.model()


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a model with ONNX's reference evaluator."""
    return [np.asarray(each) for each in ReferenceEvaluator(model).run(None, dict(feeds))]


def run_by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Run a model with ONNX Runtime on one core of the CPU."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU])
    return [np.asarray(each) for each in session.run(None, dict(feeds))]


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """A model before and after a pass, and the number of changes that the pass reports."""

    before: onnx.ModelProto
    after: onnx.ModelProto
    n_changes: int


def apply_pass(apply: Callable[[ir.Model], int], model: onnx.ModelProto) -> Rewriting:
    """Apply one pass to a copy of a model, as the compiler does, and check the result with ONNX."""
    before, after = run_passes(model, (Pass(name="tested", apply=apply),))
    onnx.checker.check_model(after.model, full_check=True)
    return Rewriting(before=before.model, after=after.model, n_changes=after.n_changes)


def check_untouched(apply: Callable[[ir.Model], int], model: onnx.ModelProto) -> None:
    """Check that a pass finds no match in a model and leaves it unchanged."""
    rewriting = apply_pass(apply, model)
    assert rewriting.n_changes == 0
    assert rewriting.after.SerializeToString() == rewriting.before.SerializeToString()
    assert list(rewriting.after.graph.node) == list(model.graph.node)
    # Shape inference may put initializers in another order.
    found, expected = (sorted(each.graph.initializer, key=_name) for each in (rewriting.after, model))
    assert found == expected


def _name(tensor: onnx.TensorProto) -> str:
    return tensor.name


def assert_close(found: NDArray[Any], expected: NDArray[Any], tolerance: float = FLOAT32_ROUNDING) -> None:
    """Check that two arrays agree relative to their largest value, or to 1, the scale of weights and inputs.

    Where all sums happen to come out small, their terms and the rounding of these were not.
    """
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert np.abs(found - expected).max(initial=0) <= tolerance * np.abs(expected).max(initial=1)


def assert_same_function(rewriting: Rewriting, graph: SmallGraph, batch: int, *, exact: bool | None = None) -> None:
    """Check that a pass keeps the function of a model, bit for bit if its numbers are whole or `exact` is true."""
    assert [each.name for each in rewriting.after.graph.output] == [each.name for each in rewriting.before.graph.output]
    feeds = graph.feeds(batch)
    found, expected = evaluate(rewriting.after, feeds), evaluate(rewriting.before, feeds)
    is_exact = graph.whole if exact is None else exact
    for after, before in zip(found, expected, strict=True):
        assert_close(after, before, 0 if is_exact else FLOAT32_ROUNDING)


def list_operators(model: onnx.ModelProto) -> list[str]:
    """List the operators of a model in their order."""
    return [node.op_type for node in model.graph.node]


def read_initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Read the initializers of a model by name."""
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def cases(*writers: Writer, **named: Writer) -> list[ParameterSet]:
    """Make test parameters of functions that write a model each, with their names as ids."""
    all_named = {each.__name__.strip("_").replace("_", " "): each for each in writers} | named
    return [pytest.param(writer, id=name) for name, writer in all_named.items()]
