"""Compute the factors and offsets of all conditional batch norms by one linear layer.

A conditional batch norm multiplies each channel by a factor and adds an offset, both linear in a condition::

    Add(Mul(x, Unsqueeze(factor(c))), Unsqueeze(offset(c)))

Where x is a ``BatchNormalization`` with constant parameters, a z + b, or a convolution with the bias b, that nothing
else uses, these constants fold into the linear layers: factor (a z + b) + offset = (a factor) z + (offset + b factor).
The layers of all norms of a condition then become one ``Gemm``, whose outputs a ``Split`` distributes. Its weights are
computed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from export.graph.batch_norms import match_batch_norm
from export.graph.nodes import (
    find_only_user,
    find_unshared_producer,
    make_initializer,
    make_unique_name,
    match_convolution,
    match_linear_layer,
    read_constant,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ConditionalNorm", "match_conditional_norm", "merge_conditional_norms"]


@dataclass(frozen=True, kw_only=True)
class ConditionalNorm:
    """Factor times the values of a channel, plus offset, with values of their own for each image.

    Attributes
    ----------
    product, total : ir.Node
        The multiplication, and the addition, which gives the result.
    image : ir.Value, shape (n, channels, height, width)
    factor, offset : ir.Value, shape (n, channels, 1, 1)
    """

    product: ir.Node
    total: ir.Node
    image: ir.Value
    factor: ir.Value
    offset: ir.Value


@dataclass(frozen=True, kw_only=True)
class _LinearForm:
    """A vector that is linear in another one: weight times source, plus bias.

    Attributes
    ----------
    source : ir.Value, shape (n, in)
    weight : ndarray of float64, shape (out, in)
    bias : ndarray of float64, shape (out,)
    """

    source: ir.Value
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    def scale(self, factor: NDArray[np.float64]) -> _LinearForm:
        """Multiply each output by a factor."""
        return _LinearForm(source=self.source, weight=factor[:, np.newaxis] * self.weight, bias=factor * self.bias)

    def add(self, other: _LinearForm) -> _LinearForm:
        """Add another form of the same source."""
        return _LinearForm(source=self.source, weight=self.weight + other.weight, bias=self.bias + other.bias)

    def shift(self, offset: NDArray[np.float64]) -> _LinearForm:
        """Add a constant to each output."""
        return _LinearForm(source=self.source, weight=self.weight, bias=self.bias + offset)


@dataclass(frozen=True, kw_only=True)
class _FoldedNorm:
    """A conditional norm with constants folded into the linear forms of its factor and offset, and its new image."""

    norm: ConditionalNorm
    image: ir.Value
    factor: _LinearForm
    offset: _LinearForm


def merge_conditional_norms(model: ir.Model, *, folds_constants: bool = True) -> int:
    """Let one linear layer for each condition compute all factors and offsets; return the number of norms.

    Parameters
    ----------
    model : ir.Model
        Changed in place.
    folds_constants : bool
        Whether constants of the layers before the norms become part of the factors and offsets.
    """
    merged: dict[ir.Value, list[_FoldedNorm]] = {}
    for node in model.graph:
        norm = match_conditional_norm(node)
        folded = None if norm is None else _read_forms(norm, folds_constants=folds_constants)
        if folded is not None:
            merged.setdefault(folded.factor.source, []).append(folded)
    for source, norms in merged.items():
        _write_layer(model.graph, source, norms)
    return sum(map(len, merged.values()))


def match_conditional_norm(node: ir.Node | None) -> ConditionalNorm | None:
    """Match ``Add(Mul(x, factor), offset)`` in any order of the inputs; None if the node is another."""
    if node is None or node.op_type != "Add" or node.domain != "":
        return None
    for summand, offset in (node.inputs, reversed(node.inputs)):
        product = None if summand is None else summand.producer()
        if summand is None or offset is None or product is None or find_only_user(summand) is None:
            continue
        if product.op_type != "Mul" or product.domain != "":
            continue
        for image, factor in (product.inputs, reversed(product.inputs)):
            if image is not None and factor is not None and _fit(image, factor) and _fit(image, offset):
                return ConditionalNorm(product=product, total=node, image=image, factor=factor, offset=offset)
    return None


def _fit(image: ir.Value, vector: ir.Value) -> bool:
    """Whether a vector has one value for each channel of each image of a batch."""
    if image.shape is None or vector.shape is None or len(image.shape) != 4 or len(vector.shape) != 4:
        return False
    batch = image.shape[0]
    is_named = isinstance(batch, int) or batch.value is not None
    return is_named and vector.shape[:2] == image.shape[:2] and vector.shape[2:] == (1, 1) != image.shape[2:]


def _read_forms(norm: ConditionalNorm, *, folds_constants: bool) -> _FoldedNorm | None:
    """Read factor and offset of a norm, with the constants before it; None if they are not linear in one value."""
    factor, offset = _match_spread_form(norm.factor), _match_spread_form(norm.offset)
    if factor is None or offset is None or factor.source is not offset.source:
        return None
    if not folds_constants:
        return _FoldedNorm(norm=norm, image=norm.image, factor=factor, offset=offset)
    image, before = norm.image, find_unshared_producer(norm.image)
    constant = None if before is None else match_batch_norm(before)
    if before is not None and constant is not None and before.inputs[0] is not None:
        image = before.inputs[0]
        factor, offset = factor.scale(constant.factor), offset.add(factor.scale(constant.offset))
    convolution = match_convolution(find_unshared_producer(image))
    if convolution is not None and convolution.bias.any():
        offset = offset.add(factor.scale(convolution.bias.astype(np.float64)))
        convolution.node.resize_inputs(2)
    return _FoldedNorm(norm=norm, image=image, factor=factor, offset=offset)


def _match_spread_form(value: ir.Value) -> _LinearForm | None:
    """Match a linear form of shape (n, channels) that is seen as (n, channels, 1, 1)."""
    node = value.producer()
    if node is None or node.op_type not in {"Unsqueeze", "Reshape"} or node.domain != "":
        return None
    flat = node.inputs[0]
    if flat is None or flat.shape is None or value.shape is None or flat.shape != value.shape[:2]:
        return None
    return _match_form(flat)


def _match_form(value: ir.Value) -> _LinearForm | None:
    """Match a linear layer, possibly followed by sums and products with constants."""
    node = value.producer()
    layer = match_linear_layer(node)
    if layer is not None and layer.node.inputs[0] is not None:
        weight, bias = (each.astype(np.float64) for each in (layer.weight, layer.bias))
        return _LinearForm(source=layer.node.inputs[0], weight=weight, bias=bias)
    if node is None or node.op_type not in {"Add", "Mul"} or node.domain != "":
        return None
    for inner, other in (node.inputs, reversed(node.inputs)):
        constant = read_constant(other)
        form = None if inner is None or constant is None else _match_form(inner)
        if form is not None and constant is not None and constant.shape in {(), (1,), form.bias.shape}:
            values = np.broadcast_to(constant.astype(np.float64), form.bias.shape)
            return form.shift(values) if node.op_type == "Add" else form.scale(values)
    return None


def _write_layer(graph: ir.Graph, source: ir.Value, norms: list[_FoldedNorm]) -> None:
    """Write the linear layer of all norms of a condition, and let the norms use its outputs."""
    forms = [form for each in norms for form in (each.factor, each.offset)]
    first = norms[0].norm.total
    constants: dict[str, NDArray[np.generic]] = {
        "weight": np.concatenate([form.weight for form in forms]).astype(np.float32),
        "bias": np.concatenate([form.bias for form in forms]).astype(np.float32),
        "sizes": np.array([len(form.bias) for form in forms], np.int64),
        "axes": np.array([2, 3], np.int64),
    }
    values = {key: make_initializer(make_unique_name(first, key), each) for key, each in constants.items()}
    for each in values.values():
        graph.register_initializer(each)
    layer = ir.node("Gemm", [source, values["weight"], values["bias"]], {"transB": 1})
    split = ir.node("Split", [*layer.outputs, values["sizes"]], {"axis": 1}, num_outputs=len(forms))
    spread = [ir.node("Unsqueeze", [each, values["axes"]]) for each in split.outputs]
    for norm, factor, offset in zip(norms, spread[::2], spread[1::2], strict=True):
        _replace_input(norm.norm.product, norm.norm.image, norm.image)
        _replace_input(norm.norm.product, norm.norm.factor, factor.outputs[0])
        _replace_input(norm.norm.total, norm.norm.offset, offset.outputs[0])
    nodes = [layer, split, *spread]
    producer = source.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)


def _replace_input(node: ir.Node, old: ir.Value, new: ir.Value) -> None:
    for index, value in enumerate(node.inputs):
        if value is old:
            node.replace_input_with(index, new)
            return
