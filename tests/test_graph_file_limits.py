"""Graph files that are too large, or refer to other files: refused in a sentence, without reading them all."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pxdbg_runtime.errors import CardError, GraphFileError
from pxdbg_runtime.model.builtin_models import find_graph
from pxdbg_runtime.model.graph_file import CARD_KEY, DIGEST_KEY, MAX_CARD_BYTES, append_card, read_graph_file
from pxdbg_runtime.model.protobuf import MalformedError, encode_delimited, walk_fields
from tests.graphs import LATENT_CARD, append_text_card, latent_model

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK_S: Final = 30.0
"""Much more than any refusal takes on a busy machine, and less than a thousandth of what a bomb could."""


def refuse_file(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises((GraphFileError, CardError), match=r"\.$") as caught:
        read_graph_file(path)
    assert time.monotonic() - start < QUICK_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


# External data


def build_external_tensor(*, without: str = "nothing") -> TensorProto:
    """Make a tensor whose values are in another file."""
    tensor = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4])
    if without != "data_location":
        tensor.data_location = TensorProto.EXTERNAL
    if without != "external_data":
        tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def build_sparse_tensor(*, is_index_external: bool) -> onnx.SparseTensorProto:
    inside = np.zeros(4, np.float32) if is_index_external else np.arange(4, dtype=np.int64)
    tensors = [numpy_helper.from_array(inside, "inside"), build_external_tensor()]
    values, indices = tensors if is_index_external else reversed(tensors)
    return helper.make_sparse_tensor(values, indices, [8])


def build_list_attribute() -> onnx.NodeProto:
    node = helper.make_node("Constant", [], ["unused"])
    attribute = node.attribute.add(name="values", type=onnx.AttributeProto.TENSORS, f=0.5, floats=[1.0, 2.0])
    attribute.tensors.append(build_external_tensor())
    return node


def build_subgraph() -> onnx.NodeProto:
    inner = helper.make_graph([], "inner", [], [], [build_external_tensor()])
    outer = helper.make_graph([helper.make_node("If", ["a"], ["b"], then_branch=inner)], "outer", [], [])
    return helper.make_node("If", ["c"], ["d"], else_branch=outer)


def build_function(*nodes: onnx.NodeProto) -> onnx.FunctionProto:
    """Make a function of nodes, or one whose attribute has an external default."""
    function = helper.make_function("ours", "f", [], ["y"], nodes, [helper.make_opsetid("", 17)])
    if not nodes:
        attribute = function.attribute_proto.add(name="w", type=onnx.AttributeProto.TENSOR)
        attribute.t.CopyFrom(build_external_tensor())
    return function


def build_constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], value=build_external_tensor())


PLACES: Final[dict[str, Callable[[onnx.ModelProto], None]]] = {
    "initializer": lambda model: model.graph.initializer.append(build_external_tensor()),
    "location alone": lambda model: model.graph.initializer.append(build_external_tensor(without="external_data")),
    "place alone": lambda model: model.graph.initializer.append(build_external_tensor(without="data_location")),
    "sparse values": lambda model: model.graph.sparse_initializer.append(build_sparse_tensor(is_index_external=False)),
    "sparse indices": lambda model: model.graph.sparse_initializer.append(build_sparse_tensor(is_index_external=True)),
    "attribute": lambda model: model.graph.node.append(build_constant()),
    "list of an attribute": lambda model: model.graph.node.append(build_list_attribute()),
    "subgraph": lambda model: model.graph.node.append(build_subgraph()),
    "function": lambda model: model.functions.append(build_function(build_constant())),
    "default of a function": lambda model: model.functions.append(build_function()),
    "training": lambda m: m.training_info.add().initialization.initializer.append(build_external_tensor()),
    "compiled part": lambda model: model.graph.node.append(
        helper.make_node("EPContext", ["z"], ["y"], "com.microsoft", ep_cache_context="part.bin", embed_mode=0)
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_graph_that_keeps_weights_in_other_files_is_refused(place: str, tmp_path: Path) -> None:
    model = latent_model()
    PLACES[place](model)
    message = refuse_file(tmp_path / "graph.onnx", append_card(model.SerializeToString(), LATENT_CARD))
    assert "keeps weights in other files" in message
    assert "python -m export" in message


# Second entries


@pytest.mark.parametrize("key", [CARD_KEY, DIGEST_KEY])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_entry_of_ours_is_refused(key: str, first: bool, tmp_path: Path) -> None:
    model = latent_model()
    onnx.helper.set_model_props(model, {key: LATENT_CARD.to_json().replace("tiny", "other") if first else ""})
    message = refuse_file(tmp_path / "graph.onnx", append_card(model.SerializeToString(), LATENT_CARD))
    assert f"has 2 metadata entries {key}, of which there must be one" in message


# Bombs


def test_a_card_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    content = append_text_card(f'{{"schema": 1, "name": "{"x" * MAX_CARD_BYTES}"}}')
    assert "has a model card of 4.2 MB, but a card has at most 4.2 MB" in refuse_file(path, content)
    path.write_bytes(append_text_card(" " * (MAX_CARD_BYTES - len(LATENT_CARD.to_json())) + LATENT_CARD.to_json()))
    assert read_graph_file(path).card == LATENT_CARD


@pytest.mark.parametrize("text", ["[" * 2_000_000, '{"a":' * 700_000, '{"schema": ' + "[" * 900 + "]" * 900 + "}"])
def test_a_card_that_is_deeply_nested_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    message = refuse_file(path, append_text_card(text))
    assert "The model card is not valid: " in message
    assert len(message) < 500 + len(str(path))


@pytest.mark.parametrize(
    "more",
    [
        encode_delimited(14, encode_delimited(1, b"k")) * 1_000_000,
        encode_delimited(14, encode_delimited(1, b"k") * 1_000_000),
        encode_delimited(7, encode_delimited(1, b"") * 1_000_000),
    ],
    ids=["the file", "one entry", "a graph"],
)
def test_a_file_of_a_million_entries_is_refused(more: bytes, tmp_path: Path) -> None:
    content = append_card(latent_model().SerializeToString() + more, LATENT_CARD)
    assert "has more than 200000 fields" in refuse_file(tmp_path / "graph.onnx", content)


def write_zeros(path: Path, n_bytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(n_bytes)
    return path


@pytest.mark.parametrize(
    ("n_bytes", "message"),
    [
        (100 * 10**9, "has 100.0 GB, but an ONNX file has at most 2 GiB"),
        (2**31, "has 2.1 GB, but an ONNX file has at most 2 GiB"),
        (50_000_000, "is not an ONNX file"),
    ],
)
def test_a_long_file_of_zeros_is_refused(n_bytes: int, message: str, tmp_path: Path) -> None:
    assert message in refuse_file(write_zeros(tmp_path / "zeros.onnx", n_bytes))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    message = "cannot be read: it is a pipe, a device or a socket, expected a regular file"
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), Path("/dev/null")):
        assert message in refuse_file(path)
    with pytest.raises(GraphFileError, match=message):
        find_graph(pipe, None)


def test_a_file_that_does_not_fit_into_memory(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no address-space limit")
    path = write_zeros(tmp_path / "large.onnx", 1_900_000_000)
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom pxdbg_runtime.model.graph_file import read_graph_file\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))\n"
        "try:\n    read_graph_file(Path(sys.argv[1]))\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("cannot be read: its 1900 MB do not fit into this job's memory.\n")


# The encoding


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\x01",  # field number 0
        b"\x0b\x0c",  # a group
        b"\x0e\x01",  # a wire type that there is not
        b"\x0d\x00\x00",  # four bytes, of which two are there
        b"\x09" + b"\0" * 7,
        b"\x8a\x80\x80\x80\x80\x01\x00",  # a tag of more than 32 bits
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x08",
    ],
)
def test_bytes_that_are_no_message(content: bytes) -> None:
    with pytest.raises(MalformedError, match=r"^$"):
        list(walk_fields(content, 0, len(content)))


def test_fields_of_every_wire_type_are_walked() -> None:
    content = b"\x08\x96\x01" + b"\x15abcd" + b"\x19abcdefgh" + b"\x22\x03xyz"
    assert [(number, kind, content[a:b]) for number, kind, a, b in walk_fields(content, 0, len(content))] == [
        (1, 0, b"\x96\x01"),
        (2, 5, b"abcd"),
        (3, 1, b"abcdefgh"),
        (4, 2, b"xyz"),
    ]
