"""Graph files: an ONNX model that contains its card and a digest.

The file is an ordinary ONNX model whose last two entries of ``metadata_props`` are the card and a SHA-256 of all
other bytes of the file, those of the card included. So a flipped byte anywhere is detected before ONNX Runtime sees
the file. Reading needs neither onnx nor ONNX Runtime.

A file is read once, into memory: the digest, the card and the session use the same bytes even if another process
changes the file meanwhile. (A memory map would show the changes, or crash the process if the file is truncated.)
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import CardError, GraphFileError
from pxdbg_runtime.model.card import ModelCard
from pxdbg_runtime.model.protobuf import (
    LENGTH_DELIMITED,
    VARINT,
    MalformedError,
    encode_delimited,
    read_varint,
    walk_fields,
)
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CARD_KEY", "DIGEST_KEY", "MAX_CARD_BYTES", "GraphFile", "append_card", "read_graph_file"]

CARD_KEY: Final = "pxdbg.card"
"""Metadata key of the card's JSON."""
DIGEST_KEY: Final = "pxdbg.sha256"
"""Metadata key of the digest, the last entry of the file."""
MAX_CARD_BYTES: Final = 4 * 2**20
"""Largest card that is read; those of the built-in graphs have less than a tenth of it."""

_MAX_FILE_BYTES: Final = 2**31 - 1
"""Largest protocol buffer, so also the largest ONNX file without external data."""
_MAX_FIELDS: Final = 200_000
"""Most fields in all messages; built-in graphs have some thousands. This many are read in a fraction of a second."""
_DIGEST_LENGTH: Final = 64

# Field numbers of ONNX's messages.
_GRAPH_FIELD: Final = 7
_FUNCTION_FIELD: Final = 25
_METADATA_FIELD: Final = 14
_KEY_FIELD: Final = 1
_VALUE_FIELD: Final = 2
_OP_TYPE_FIELD: Final = 4
_EXTERNAL_DATA_FIELD: Final = 13
_DATA_LOCATION_FIELD: Final = 14
_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "ModelProto": {7: "GraphProto", 14: "StringStringEntryProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "TensorProto": {},
    "StringStringEntryProto": {},
}
"""Messages that contain tensors at any depth, and the metadata: field numbers and the messages in these fields."""


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """A graph file that was read and matches its digest.

    Attributes
    ----------
    path : Path
    card : ModelCard
    sha256 : str
        Of the whole file, as in the manifest.
    content : bytes
        The bytes of the file. A session reads them and never the path; drop this object once the session exists.
    """

    path: Path
    card: ModelCard
    sha256: str
    content: bytes = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.content)


def append_card(model: bytes, card: ModelCard) -> bytes:
    """Append a card and the digest to a serialised ONNX model.

    Parameters
    ----------
    model : bytes
        A ModelProto without the two metadata entries.
    card : ModelCard

    Returns
    -------
    bytes
        A ModelProto: appending the bytes of an element appends it to a repeated field.
    """
    with_card = model + _encode_metadata(CARD_KEY, card.to_json())
    return with_card + _encode_metadata(DIGEST_KEY, hashlib.sha256(with_card).hexdigest())


def read_graph_file(path: Path) -> GraphFile:
    """Read a graph file and check it against its digest.

    Raises
    ------
    GraphFileError
        If the file cannot be read, is not ONNX, has no card or two, does not match its digest, has functions, or keeps
        weights in other files.
    CardError
        If the card is not valid.
    """
    content = _read_content(path)
    sha256, agrees = _compare_with_digest(content)
    if agrees is False:
        raise _describe_damage(path)
    try:
        _check_messages(path, content)
        card_text = _find_card(path, content)
    except (MalformedError, UnicodeDecodeError):
        message = f"{path} is not an ONNX file, or is truncated: expected a graph from python -m export."
        raise GraphFileError(path, message) from None
    if agrees is None:
        raise _describe_damage(path)
    try:
        card = ModelCard.from_json(card_text)
    except CardError as error:
        error.args = (f"{path}: {error}",)
        raise
    return GraphFile(path=path, card=card, sha256=sha256, content=content)


def _read_content(path: Path) -> bytes:
    """Read a regular file of at most 2 GiB."""
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            if not found.st_size:
                raise GraphFileError(path, f"The graph {path} is empty.")
            if found.st_size > _MAX_FILE_BYTES:
                message = (
                    f"{path} has {found.st_size / 1e9:.1f} GB, but an ONNX file has at most 2 GiB: expected a graph "
                    "from python -m export."
                )
                raise GraphFileError(path, message)
            return file.read(found.st_size)
    except OSError as error:
        raise GraphFileError(path, f"The graph {path} cannot be read: {error.strerror or error}.") from None
    except MemoryError:
        message = (
            f"The graph {path} cannot be read: its {found.st_size / 1e6:.0f} MB do not fit into this job's memory."
        )
        raise GraphFileError(path, message) from None


def _compare_with_digest(content: bytes) -> tuple[str, bool | None]:
    """Compute the file's SHA-256, and whether its digest matches; None if the file does not end with a digest."""
    # The digest is the last entry, so it must equal the running hash before it.
    length = len(_encode_metadata(DIGEST_KEY, "0" * _DIGEST_LENGTH))
    whole = hashlib.sha256(memoryview(content)[:-length])
    expected = _encode_metadata(DIGEST_KEY, whole.hexdigest())
    entry = content[-length:]
    whole.update(entry)
    if entry[:-_DIGEST_LENGTH] != expected[:-_DIGEST_LENGTH]:
        return whole.hexdigest(), None
    return whole.hexdigest(), entry == expected


def _describe_damage(path: Path) -> GraphFileError:
    message = (
        f"The graph {path} is damaged or was changed after it was exported: its content does not match "
        "its digest. Copy it again, or export the checkpoint again."
    )
    return GraphFileError(path, message)


def _find_card(path: Path, content: bytes) -> str:
    """Find the one card among the metadata of a ModelProto."""
    counts = {CARD_KEY: 0, DIGEST_KEY: 0}
    card = slice(0, 0)
    has_graph = False
    for number, wire_type, start, end in walk_fields(content, 0, len(content)):
        has_graph |= number == _GRAPH_FIELD and wire_type == LENGTH_DELIMITED
        if number == _METADATA_FIELD and wire_type == LENGTH_DELIMITED:
            places = {n: slice(a, b) for n, _, a, b in walk_fields(content, start, end)}
            key = _match_key(content[places.get(_KEY_FIELD, slice(0, 0))])
            if key is not None:
                counts[key] += 1
            if key == CARD_KEY:
                card = places.get(_VALUE_FIELD, slice(0, 0))
    if not has_graph:
        raise MalformedError
    if not counts[CARD_KEY]:
        message = (
            f"{path} is an ONNX file without a model card: expected a graph from python -m export. "
            "Export your checkpoint with it."
        )
        raise GraphFileError(path, message)
    for key, count in counts.items():
        if count > 1:
            message = (
                f"{path} has {count} metadata entries {key}, of which there must be one: export the checkpoint again."
            )
            raise GraphFileError(path, message)
    if card.stop - card.start > MAX_CARD_BYTES:
        message = (
            f"{path} has a model card of {(card.stop - card.start) / 1e6:.1f} MB, but a card has at "
            f"most {MAX_CARD_BYTES / 1e6:.1f} MB: export the checkpoint again."
        )
        raise GraphFileError(path, message)
    return content[card].decode()


def _match_key(key: bytes) -> str | None:
    return next((ours for ours in (CARD_KEY, DIGEST_KEY) if key == ours.encode()), None)


def _check_messages(path: Path, content: bytes) -> None:
    """Refuse too many fields, tensors with values in another file, which the digest does not cover, and functions.

    ONNX Runtime replaces a call of a function by its nodes: thirty functions that each call another one twice, a few
    kilobytes, become a billion nodes.
    """
    n_fields = 0
    has_functions = False
    to_walk = [("ModelProto", 0, len(content))]
    while to_walk:
        message_type, start, end = to_walk.pop()
        inner = _MESSAGES[message_type]
        for number, wire_type, first, after in walk_fields(content, start, end):
            n_fields += 1
            if n_fields > _MAX_FIELDS:
                message = f"{path} has more than {_MAX_FIELDS} fields: expected a graph from python -m export."
                raise GraphFileError(path, message)
            has_functions |= message_type == "ModelProto" and number == _FUNCTION_FIELD
            if wire_type == LENGTH_DELIMITED and number in inner:
                to_walk.append((inner[number], first, after))
            elif _is_external(content, slice(first, after), message_type, number, wire_type):
                message = (
                    f"{path} keeps weights in other files (ONNX's external data), which its digest does not cover: "
                    "export the checkpoint again with python -m export, which keeps them inside."
                )
                raise GraphFileError(path, message)
    if has_functions:
        message = (
            f"{path} has functions of its own, which python -m export writes none of: export the checkpoint again."
        )
        raise GraphFileError(path, message)


def _is_external(content: bytes, place: slice, message_type: str, number: int, wire_type: int) -> bool:
    """Whether a field names another file, with the values of a tensor or with a part of the graph for a provider."""
    if message_type == "NodeProto":
        return number == _OP_TYPE_FIELD and content[place] == b"EPContext"
    if message_type != "TensorProto":
        return False
    if number == _DATA_LOCATION_FIELD and wire_type == VARINT:
        return read_varint(content, place.start, place.stop)[0] != 0
    return number == _EXTERNAL_DATA_FIELD


def _encode_metadata(key: str, value: str) -> bytes:
    content = encode_delimited(_KEY_FIELD, key.encode()) + encode_delimited(_VALUE_FIELD, value.encode())
    return encode_delimited(_METADATA_FIELD, content)
