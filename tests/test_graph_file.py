"""Graph files: ONNX to others, whole or refused to us, whatever was done to their bytes."""

from __future__ import annotations

import hashlib
import random
import re
from typing import TYPE_CHECKING, Final

import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from pxdbg_runtime.errors import CardError, GraphFileError
from pxdbg_runtime.model.card import ModelCard
from pxdbg_runtime.model.graph_file import CARD_KEY, DIGEST_KEY, GraphFile, append_card, read_graph_file
from tests.graphs import EVENT_WIDE_CARD, LATENT_CARD, event_wide_model, latent_model

if TYPE_CHECKING:
    from pathlib import Path

MODEL: Final = latent_model().SerializeToString()
SEALED: Final = append_card(MODEL, LATENT_CARD)
DIGEST_LENGTH: Final = 64
NOT_WHOLE: Final = r"is (not an ONNX file, or is truncated|an ONNX file without a model card|damaged or was changed)"

file_per_example = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def refuse_file(path: Path, content: bytes) -> GraphFileError:
    """Read a file that is not whole: nothing but a GraphFileError of one or two sentences may come of it."""
    path.write_bytes(content)
    with pytest.raises(GraphFileError, match=NOT_WHOLE) as caught:
        read_graph_file(path)
    assert caught.value.path == path
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("model", "card"), [(latent_model(), LATENT_CARD), (event_wide_model(), EVENT_WIDE_CARD)], ids=["latent", "event"]
)
def test_round_trip(model: onnx.ModelProto, card: ModelCard, tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    content = append_card(model.SerializeToString(), card)
    path.write_bytes(content)
    expected = GraphFile(path=path, card=card, sha256=hashlib.sha256(content).hexdigest(), content=content)
    found = read_graph_file(path)
    assert (found, found.content, found.size) == (expected, content, len(content))


def test_sealing_twice_gives_the_same_bytes() -> None:
    assert append_card(MODEL, LATENT_CARD) == SEALED


def test_a_sealed_file_is_an_ordinary_onnx_model(latent_graph: GraphFile) -> None:
    model = onnx.load(latent_graph.path)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph == latent_model().graph
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert list(metadata) == [CARD_KEY, DIGEST_KEY]
    assert ModelCard.from_json(metadata[CARD_KEY]) == latent_graph.card
    content = latent_graph.path.read_bytes()
    assert content[-DIGEST_LENGTH:].decode() == metadata[DIGEST_KEY]


def test_the_digest_is_that_of_every_byte_before_its_entry(latent_graph: GraphFile) -> None:
    content = latent_graph.path.read_bytes()
    entry = content.rindex(DIGEST_KEY.encode()) - 4
    assert hashlib.sha256(content[:entry]).hexdigest() == content[-DIGEST_LENGTH:].decode()


@file_per_example
@given(place=st.integers(0, len(SEALED) - 1), change=st.integers(1, 255))
@example(place=0, change=1)
@example(place=len(SEALED) - 1, change=1)
@example(place=SEALED.index(CARD_KEY.encode()), change=0x20)
@example(place=SEALED.index(b'"schema"') + 10, change=3)
@example(place=SEALED.rindex(DIGEST_KEY.encode()), change=0x20)
@example(place=SEALED.rindex(DIGEST_KEY.encode()) - 1, change=0xFF)
@example(place=len(SEALED) - DIGEST_LENGTH, change=0x80)
def test_a_changed_byte_is_found_wherever_it_is(place: int, change: int, tmp_path: Path) -> None:
    content = bytearray(SEALED)
    content[place] ^= change
    refuse_file(tmp_path / "graph.onnx", bytes(content))


@pytest.mark.parametrize("last", [*range(1, 200), *range(1000, len(SEALED), 499)])
def test_each_byte_towards_the_end_of_a_file_counts(last: int, tmp_path: Path) -> None:
    content = bytearray(SEALED)
    content[-last] ^= 0x11
    refuse_file(tmp_path / "graph.onnx", bytes(content))


@file_per_example
@given(length=st.integers(1, len(SEALED) - 1))
@example(length=1)
@example(length=len(MODEL))
@example(length=len(MODEL) - 1)
@example(length=len(SEALED) - 1)
@example(length=len(SEALED) - DIGEST_LENGTH)
@example(length=SEALED.rindex(DIGEST_KEY.encode()) - 4)
def test_a_truncated_file_is_refused(length: int, tmp_path: Path) -> None:
    refuse_file(tmp_path / "graph.onnx", SEALED[:length])


@file_per_example
@given(more=st.binary(min_size=1, max_size=300))
@example(more=b"\n")
def test_a_file_with_something_behind_its_end_is_refused(more: bytes, tmp_path: Path) -> None:
    refuse_file(tmp_path / "graph.onnx", SEALED + more)


def test_a_file_twice_is_refused(tmp_path: Path) -> None:
    assert "digest" in str(refuse_file(tmp_path / "graph.onnx", SEALED + SEALED))


@file_per_example
@given(content=st.binary(min_size=1, max_size=600))
@example(content=b"\x3a")
@example(content=b"\x80" * 40)
@example(content=b"\xff" * 12)
@example(content=b"\x3a\x00")
@example(content=b"\x08\x01")
@example(content=b"\x3a\x00\x72\x04\x0a\x02\xff\xfe")
@example(content=b"PK\x03\x04 a checkpoint, not a graph")
def test_any_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    refuse_file(tmp_path / "graph.onnx", content)


def build_file(source: bytes, *, producer: str = "", **metadata: str) -> bytes:
    """Change an ONNX file as another tool would."""
    model = onnx.load_from_string(source)
    model.producer_name = producer
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (random.Random(1).randbytes(100_000), "not an ONNX file"),
        (append_card(b"\x08\x08", LATENT_CARD), "not an ONNX file"),
        (MODEL, r"graph\.onnx is an ONNX file without a model card.*python -m export"),
        (build_file(MODEL, **{CARD_KEY: LATENT_CARD.to_json()}), "does not match its digest"),
        (build_file(SEALED, producer="another tool"), "was changed after it was exported"),
    ],
    ids=["random bytes", "card without a graph", "graph without a card", "card without a digest", "saved anew"],
)
def test_a_file_that_is_not_whole_is_told_what_it_lacks(content: bytes, message: str, tmp_path: Path) -> None:
    assert re.search(message, str(refuse_file(tmp_path / "graph.onnx", content)))


def test_other_metadata_stays(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_card(build_file(MODEL, author="Wörterbuch", empty=""), LATENT_CARD))
    assert read_graph_file(path).card == LATENT_CARD
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props}["author"] == "Wörterbuch"


def test_a_sealed_card_that_is_not_valid_names_the_file_and_the_field(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(append_card(MODEL, structs.replace(LATENT_CARD, min_charge=300)))
    message = r"graph\.onnx: The model card is not valid: min_charge must be an integer <= 255, but is 300\."
    with pytest.raises(CardError, match=message) as caught:
        read_graph_file(path)
    assert caught.value.field == "min_charge"


def test_what_cannot_be_read_and_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    for path, message in (
        (tmp_path / "empty.onnx", r"The graph .*empty\.onnx is empty\."),
        (tmp_path, r"cannot be read: Is a directory\."),
        (tmp_path / "gone.onnx", r"gone\.onnx cannot be read: No such file or directory\."),
    ):
        with pytest.raises(GraphFileError, match=message) as caught:
            read_graph_file(path)
        assert caught.value.path == path
