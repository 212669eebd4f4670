"""Multiply the rows of a constant table with the weights of a linear layer once, at export.

Matches ``Gemm(Concat(Gather(table, i), z))`` with constant weights and bias, where the table has fewer rows than
columns. The layer is linear, so it becomes ``Gemm(z)`` with a summand ``Gather(products, i)``: the products of the rows
and their weights, plus the bias, computed in float64 and rounded once. For a few images a linear layer costs as much
time as reading its weights, which are then fewer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from export.graph.nodes import match_linear_layer, read_constant, read_shape
from export.graph.rules import Writer, apply_rules

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["fold_row_tables"]


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows of a constant table.

    Attributes
    ----------
    table : ndarray, shape (rows, columns)
    index : ir.Value, shape (n,)
    """

    table: NDArray[np.generic]
    index: ir.Value


def fold_row_tables(model: ir.Model) -> int:
    """Fold tables into the linear layers after them; return the number of layers."""
    return apply_rules(model, {"Gemm": _fold})


def _fold(write: Writer, node: ir.Node) -> ir.Value | None:
    layer, joined = match_linear_layer(node), node.inputs[0]
    concatenation = None if joined is None else joined.producer()
    if layer is None or concatenation is None or concatenation.op_type != "Concat":
        return None
    parts, sizes = list(concatenation.inputs), [(read_shape(each) or (None,))[-1] for each in concatenation.inputs]
    if (
        concatenation.attributes.get_int("axis", 0) not in {1, -1}
        or len(read_shape(joined) or ()) != 2
        or None in sizes
    ):
        return None
    matched = [_match_rows(each) for each in parts]
    position = next((number for number, rows in enumerate(matched) if rows is not None), None)
    rows = None if position is None else matched[position]
    if position is None or rows is None or len(parts) == 1 or len(rows.table) >= rows.table.shape[1]:
        return None
    weights = np.split(layer.weight.astype(np.float64), np.cumsum([size or 0 for size in sizes])[:-1], axis=1)
    products = rows.table.astype(np.float64) @ weights.pop(position).T + layer.bias
    del parts[position]
    rest = parts[0] if len(parts) == 1 else write.node("Concat", parts, axis=1)
    summand = write.node("Gather", [write.constant(products.astype(np.float32), "rows"), rows.index], axis=0)
    weight = write.constant(np.concatenate(weights, axis=1).astype(np.float32), "weight")
    return write.node("Gemm", [rest, weight, summand], transB=1)


def _match_rows(value: ir.Value | None) -> _Rows | None:
    """Match ``Gather(table, i)``, or ``GatherND(table, Unsqueeze(i))``, as PyTorch's exporter writes it."""
    node = None if value is None else value.producer()
    if node is None or node.domain != "" or node.op_type not in {"Gather", "GatherND"}:
        return None
    table, index = read_constant(node.inputs[0]), node.inputs[1]
    if node.attributes.get_int("axis", 0) or node.attributes.get_int("batch_dims", 0):
        return None
    if node.op_type == "GatherND":
        spread = None if index is None else index.producer()
        if spread is None or spread.op_type != "Unsqueeze" or (read_shape(index) or ())[1:] != (1,):
            return None
        index = spread.inputs[0]
    if table is None or table.ndim != 2 or index is None or len(read_shape(index) or ()) != 1:
        return None
    return _Rows(table=table, index=index)
