"""Graph files that are too much, or that leave something to other files: refused in a sentence, without reading them all."""

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
from tests.graphs import LATENT_CARD, latent_model

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK_S: Final = 30.0
"""Much more than any refusal takes on a busy machine, and less than a thousandth of what a bomb could."""


class LongCard:
    """A card whose text is given."""

    def __init__(self, text: str) -> None:
        self._text = text

    def to_json(self) -> str:
        return self._text


def append_text_card(text: str, model: bytes | None = None) -> bytes:
    """Seal a model with any text in the place of the card."""
    return append_card(latent_model().SerializeToString() if model is None else model, LongCard(text))  # type: ignore[arg-type]


def refuse_file(path: Path) -> str:
    start = time.monotonic()
    with pytest.raises((GraphFileError, CardError), match=r"\.$") as caught:
        read_graph_file(path)
    assert time.monotonic() - start < QUICK_S
    assert "\n" not in str(caught.value)
    return str(caught.value)


# External data


def build_external_tensor(name: str = "weights") -> TensorProto:
    """Make a tensor whose values are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def in_an_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(build_external_tensor())


def in_a_location_alone(model: onnx.ModelProto) -> None:
    tensor = build_external_tensor()
    tensor.ClearField("external_data")
    model.graph.initializer.append(tensor)


def in_a_place_alone(model: onnx.ModelProto) -> None:
    tensor = build_external_tensor()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


def in_a_sparse_initializer(model: onnx.ModelProto) -> None:
    indices = numpy_helper.from_array(np.arange(4, dtype=np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(build_external_tensor(), indices, [8]))


def in_sparse_indices(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.zeros(4, np.float32), "values")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, build_external_tensor(), [8]))


def in_an_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=build_external_tensor()))


def in_a_list_of_an_attribute(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["unused"])
    attribute = onnx.AttributeProto(name="values", type=onnx.AttributeProto.TENSORS, f=0.5, floats=[1.0, 2.0])
    attribute.tensors.append(build_external_tensor())
    node.attribute.append(attribute)
    model.graph.node.append(node)


def in_a_subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [build_external_tensor()])
    outer = helper.make_graph([helper.make_node("If", ["a"], ["b"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], else_branch=outer))


def in_a_function(model: onnx.ModelProto) -> None:
    nodes = [helper.make_node("Constant", [], ["y"], value=build_external_tensor())]
    model.functions.append(helper.make_function("ours", "f", [], ["y"], nodes, [helper.make_opsetid("", 17)]))


def in_a_default_of_a_function(model: onnx.ModelProto) -> None:
    function = helper.make_function("ours", "f", [], ["y"], [], [helper.make_opsetid("", 17)])
    attribute = onnx.AttributeProto(name="w", type=onnx.AttributeProto.TENSOR)
    attribute.t.CopyFrom(build_external_tensor())
    function.attribute_proto.append(attribute)
    model.functions.append(function)


def in_training_information(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(build_external_tensor())


def in_a_compiled_part(model: onnx.ModelProto) -> None:
    node = helper.make_node(
        "EPContext", ["z"], ["y"], domain="com.microsoft", ep_cache_context="part.bin", embed_mode=0
    )
    model.graph.node.append(node)


@pytest.mark.parametrize(
    "place",
    [
        in_an_initializer,
        in_a_location_alone,
        in_a_place_alone,
        in_a_sparse_initializer,
        in_sparse_indices,
        in_an_attribute,
        in_a_list_of_an_attribute,
        in_a_subgraph,
        in_a_function,
        in_a_default_of_a_function,
        in_training_information,
        in_a_compiled_part,
    ],
)
def test_a_graph_that_keeps_weights_in_other_files_is_refused(
    place: Callable[[onnx.ModelProto], None], tmp_path: Path
) -> None:
    model = latent_model()
    place(model)
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_card(model.SerializeToString(), LATENT_CARD))
    assert "keeps weights in other files" in refuse_file(path)
    assert "python -m export" in refuse_file(path)


# Second entries


@pytest.mark.parametrize("key", [CARD_KEY, DIGEST_KEY])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_entry_of_ours_is_refused(key: str, first: bool, tmp_path: Path) -> None:
    model = latent_model()
    onnx.helper.set_model_props(model, {key: LATENT_CARD.to_json().replace("tiny", "other") if first else ""})
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_card(model.SerializeToString(), LATENT_CARD))
    assert f"has 2 metadata entries {key}, of which there must be one" in refuse_file(path)


# Bombs


def test_a_card_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_text_card(f'{{"schema": 1, "name": "{"x" * MAX_CARD_BYTES}"}}'))
    assert "has a model card of 4.2 MB, but a card has at most 4.2 MB" in refuse_file(path)
    path.write_bytes(append_text_card(" " * (MAX_CARD_BYTES - len(LATENT_CARD.to_json())) + LATENT_CARD.to_json()))
    assert read_graph_file(path).card == LATENT_CARD


@pytest.mark.parametrize("text", ["[" * 2_000_000, '{"a":' * 700_000, '{"schema": ' + "[" * 900 + "]" * 900 + "}"])
def test_a_card_that_is_deeply_nested_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_text_card(text))
    assert "The model card is not valid: " in refuse_file(path)
    assert len(refuse_file(path)) < 500 + len(str(path))


@pytest.mark.parametrize("where", ["the file", "one entry", "a graph"])
def test_a_file_of_a_million_entries_is_refused(where: str, tmp_path: Path) -> None:
    entry = encode_delimited(14, encode_delimited(1, b"k"))
    more = {
        "the file": entry * 1_000_000,
        "one entry": encode_delimited(14, encode_delimited(1, b"k") * 1_000_000),
        "a graph": encode_delimited(7, encode_delimited(1, b"") * 1_000_000),
    }[where]
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_card(latent_model().SerializeToString() + more, LATENT_CARD))
    assert "has more than 200000 fields" in refuse_file(path)


def sparse_file(folder: Path) -> Path:
    path = folder / "sparse.onnx"
    with path.open("wb") as file:
        file.truncate(100 * 10**9)
    return path


def just_too_long(folder: Path) -> Path:
    path = folder / "long.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    return path


@pytest.mark.parametrize(("make", "size"), [(sparse_file, "100.0 GB"), (just_too_long, "2.1 GB")])
def test_a_file_beyond_the_limit_of_protocol_buffers_is_refused(
    make: Callable[[Path], Path], size: str, tmp_path: Path
) -> None:
    assert f"has {size}, but an ONNX file has at most 2 GiB" in refuse_file(make(tmp_path))


def test_a_file_of_zeros_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "zeros.onnx"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    assert "is not an ONNX file" in refuse_file(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    assert "cannot be read: it is a pipe, a device or a socket, expected a regular file" in refuse_file(
        tmp_path / "pipe.onnx"
    )
    assert "cannot be read: it is a pipe, a device or a socket, expected a regular file" in refuse_file(
        Path("/dev/zero")
    )
    assert "cannot be read: it is a pipe, a device or a socket, expected a regular file" in refuse_file(
        Path("/dev/null")
    )
    with pytest.raises(
        GraphFileError, match="cannot be read: it is a pipe, a device or a socket, expected a regular file"
    ):
        find_graph(tmp_path / "pipe.onnx", None)


def test_a_file_that_does_not_fit_into_memory(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="this system has no address-space limit")
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1_900_000_000)
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
