"""Graphs that someone wrote to do harm, with a card and a digest that are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pxdbg_runtime.model.graph_file import append_card
from pxdbg_runtime.model.protobuf import encode_delimited
from tests.graphs import LATENT_CARD, OPSET, latent_model
from tests.release_digits import release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["HOSTILE", "add_nodes", "write_hostile_graph"]

RELEASE: Final = release()
"""Of ONNX Runtime: older ones check no sizes before they ask for the memory."""
OURS: Final = "ours"
LONG: Final = 2_000_000
"""Characters of a name."""
HUGE: Final = 10**12
"""Elements of a tensor: 4 TB."""


def add_nodes(model: onnx.ModelProto, *nodes: onnx.NodeProto, constants: dict[str, object] | None = None) -> None:
    """Add nodes whose output ``harm`` goes into the images, so that nobody may leave them out."""
    place, last = next((place, node) for place, node in enumerate(model.graph.node) if node.op_type == "Clip")
    used = [
        helper.make_node("ReduceMin", ["harm"], ["least"], keepdims=0),
        helper.make_node("Add", ["sloping", "least"], ["harmed"]),
    ]
    last.input[0] = "harmed"
    for offset, node in enumerate([*nodes, *used]):
        model.graph.node.insert(place + offset, node)
    for name, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _add_constant_of_shape(model: onnx.ModelProto) -> None:
    node = helper.make_node("ConstantOfShape", ["shape"], ["harm"])
    add_nodes(model, node, constants={"shape": np.array([HUGE], np.int64)})


def _add_expand(model: onnx.ModelProto) -> None:
    node = helper.make_node("Expand", ["single", "shape"], ["harm"])
    square = np.array([HUGE**0.5, HUGE**0.5], np.int64)
    add_nodes(model, node, constants={"single": np.ones((1, 1), np.float32), "shape": square})


def _add_tile(model: onnx.ModelProto) -> None:
    square = np.array([HUGE**0.5, HUGE**0.5], np.int64)
    add_nodes(model, helper.make_node("Tile", ["z", "repeats"], ["harm"]), constants={"repeats": square})


def _add_range(model: onnx.ModelProto) -> None:
    ends = {"start": np.float32(0), "limit": np.float32(HUGE), "delta": np.float32(1)}
    add_nodes(model, helper.make_node("Range", list(ends), ["harm"]), constants=dict(ends))


def _claim_values(model: onnx.ModelProto, dims: Sequence[int]) -> None:
    model.graph.initializer.append(TensorProto(name="claimed", data_type=TensorProto.FLOAT, dims=dims))
    add_nodes(model, helper.make_node("Identity", ["claimed"], ["harm"]))


def _call_custom_operator(model: onnx.ModelProto, *, domain: str = "evil.example", name: str = "Evil") -> None:
    model.opset_import.append(helper.make_opsetid(domain, 1))
    add_nodes(model, helper.make_node(name, ["z"], ["harm"], domain=domain))


def _call_functions(model: onnx.ModelProto, n_functions: int) -> None:
    """Let each function call the one before twice: 2^n nodes."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OURS, 1)]
    model.opset_import.append(opsets[1])
    for number in range(n_functions):
        nodes = [helper.make_node("Relu", ["a"], ["b"])]
        if number:
            nodes = [helper.make_node(f"F{number - 1}", [one], [other], domain=OURS) for one, other in ("ac", "cb")]
        model.functions.append(helper.make_function(OURS, f"F{number}", ["a"], ["b"], nodes, opsets))
    add_nodes(model, helper.make_node(f"F{n_functions - 1}", ["z"], ["harm"], domain=OURS))


def _call_itself(model: onnx.ModelProto) -> None:
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OURS, 1)]
    model.opset_import.append(opsets[1])
    call = helper.make_node("F", ["a"], ["b"], domain=OURS)
    model.functions.append(helper.make_function(OURS, "F", ["a"], ["b"], [call], opsets))
    add_nodes(model, helper.make_node("F", ["z"], ["harm"], domain=OURS))


def _nest(depth: int) -> bytes:
    """Put conditions into conditions, in bytes: onnx itself does not write this many."""
    output = helper.make_tensor_value_info("harm", TensorProto.FLOAT, None).SerializeToString()
    identity = encode_delimited(1, helper.make_node("Identity", ["z"], ["harm"]).SerializeToString())
    node = identity
    for _ in range(depth):
        branches = (("then_branch", node), ("else_branch", identity))
        attributes = b"".join(
            encode_delimited(5, encode_delimited(1, name.encode()) + encode_delimited(6, content) + _IS_GRAPH)
            for name, content in (
                (name, nodes + _GRAPH_NAME + encode_delimited(12, output)) for name, nodes in branches
            )
        )
        texts = ((1, "yes"), (2, "harm"), (4, "If"))
        node = encode_delimited(1, b"".join(encode_delimited(n, text.encode()) for n, text in texts) + attributes)
    model = latent_model()
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(np.bool_(True)), "yes"))
    return bytes(model.SerializeToString()) + encode_delimited(7, node)  # a message twice is merged


_IS_GRAPH: Final = b"\xa0\x01\x05"
"""The field `type` of an attribute."""
_GRAPH_NAME: Final = encode_delimited(2, b"g")


def _change(change: Callable[[onnx.ModelProto], None]) -> Callable[[], bytes]:
    """Serialise the graph that latents alone go into, with something added."""

    def build() -> bytes:
        model = latent_model()
        change(model)
        return bytes(model.SerializeToString())

    return build


def _add_text(model: onnx.ModelProto) -> None:
    add_nodes(model, helper.make_node("Relu", ["z"], ["harm"], text="x" * 10 * LONG))


def _add_cycle(model: onnx.ModelProto) -> None:
    add_nodes(model, helper.make_node("Relu", ["other"], ["harm"]), helper.make_node("Relu", ["harm"], ["other"]))


HOSTILE: Final[dict[str, tuple[Callable[[], bytes], str]]] = {
    "constant of shape": (_change(_add_constant_of_shape), "not enough memory"),
    "expand": (_change(_add_expand), "not enough memory"),
    "tile": (_change(_add_tile), "failed to run .* Tile" if RELEASE >= (1, 27) else "not enough memory: .* Tile"),
    "range": (_change(_add_range), "not enough memory"),
    "more values than bytes": (
        _change(lambda model: _claim_values(model, [10**6, 10**6])),
        "created no session" if RELEASE >= (1, 25) else "not enough memory: .* during initialization",
    ),
    "size that overflows": (_change(lambda model: _claim_values(model, [2**62, 2**62])), "created no session"),
    "negative size": (_change(lambda model: _claim_values(model, [-5])), "created no session"),
    "custom operator": (_change(_call_custom_operator), "created no session .* is not a registered function/op"),
    "long operator": (_change(lambda model: _call_custom_operator(model, name="E" * LONG)), "created no session"),
    "long domain": (_change(lambda model: _call_custom_operator(model, domain="e" * LONG)), "created no session"),
    "long value name": (
        _change(lambda model: add_nodes(model, helper.make_node("Relu", ["z" * LONG], ["harm"]))),
        "created no session",
    ),
    "long attribute": (_change(_add_text), "created no session .* Unrecognized attribute"),
    "cycle": (_change(_add_cycle), "created no session .* not acyclic"),
    "function": (_change(lambda model: _call_functions(model, 1)), "has functions of its own"),
    "billion nodes in functions": (_change(lambda model: _call_functions(model, 30)), "has functions of its own"),
    "function that calls itself": (_change(_call_itself), "has functions of its own"),
    "nested deeply": (lambda: _nest(1000), "created no session .* protobuf parsing failed"),
}
"""By name: the serialised model, and what the sentence says that ends it."""


def write_hostile_graph(path: Path, name: str) -> Path:
    """Write one of them, with a card and a digest."""
    path.write_bytes(append_card(HOSTILE[name][0](), LATENT_CARD))
    return path
