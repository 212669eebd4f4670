"""Graph files: an ONNX model with its card and a digest inside.

The file is an ordinary ONNX model. Two entries of its ``metadata_props`` are ours, and they stand at its end:
the card, and a SHA-256 of every other byte of the file, the card's included. So a flipped byte anywhere is
found before ONNX Runtime sees the file. Reading needs neither onnx nor ONNX Runtime: of the protocol-buffer
encoding only the outermost layer is walked.
"""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.card import ModelCard
from pxdbg_runtime.errors import CardError, GraphFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["CARD_KEY", "DIGEST_KEY", "GraphFile", "read_graph_file", "sealed"]

CARD_KEY: Final = "pxdbg.card"
"""Metadata key of the card's JSON."""
DIGEST_KEY: Final = "pxdbg.sha256"
"""Metadata key of the digest, always the last entry of the file."""

# ONNX's ModelProto: field numbers, and the wire types of protocol buffers.
_GRAPH_FIELD: Final = 7
_METADATA_FIELD: Final = 14
_KEY_FIELD: Final = 1
_VALUE_FIELD: Final = 2
_VARINT: Final = 0
_LENGTH_DELIMITED: Final = 2
_MAX_VARINT_BYTES: Final = 10
_DIGEST_LENGTH: Final = 64


@dataclass(frozen=True, kw_only=True)
class GraphFile:
    """A graph file that was read and found whole.

    Attributes
    ----------
    path : Path
    card : ModelCard
    sha256 : str
        Of the whole file, as in the manifest.
    size : int
        Bytes.
    """

    path: Path
    card: ModelCard
    sha256: str
    size: int


class _MalformedError(Exception):
    """The bytes do not follow the protocol-buffer encoding."""


def sealed(model: bytes, card: ModelCard) -> bytes:
    """Append a card and the digest to a serialised ONNX model.

    Parameters
    ----------
    model : bytes
        A ModelProto without our two metadata entries.
    card : ModelCard

    Returns
    -------
    bytes
        A ModelProto: in this encoding, appending an element to a repeated field is appending its bytes.
    """
    with_card = model + _metadata_entry(CARD_KEY, card.to_json())
    return with_card + _metadata_entry(DIGEST_KEY, hashlib.sha256(with_card).hexdigest())


def read_graph_file(path: Path) -> GraphFile:
    """Read the card of a graph file and check the file against its digest.

    Raises
    ------
    GraphFileError
        If the file cannot be read, is not ONNX, has no card, or does not agree with its digest.
    CardError
        If the card is not valid.
    """
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                message = f"The graph {path} is empty."
                raise GraphFileError(path, message)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(path, content)
    except OSError as error:
        message = f"The graph {path} cannot be read: {error.strerror or error}."
        raise GraphFileError(path, message) from None


def _read(path: Path, content: mmap.mmap) -> GraphFile:
    sha256, agrees = _checked_against_digest(content)
    if agrees is False:
        raise _damaged(path)
    try:
        found = _entries(content)
    except (_MalformedError, UnicodeDecodeError):
        message = f"{path} is not an ONNX file, or is truncated: expected a graph made by python -m export."
        raise GraphFileError(path, message) from None
    if CARD_KEY not in found:
        message = (
            f"{path} is an ONNX file without a model card: expected a graph made by python -m export. "
            "Export your checkpoint with it."
        )
        raise GraphFileError(path, message)
    if agrees is None:
        raise _damaged(path)
    try:
        card = ModelCard.from_json(found[CARD_KEY])
    except CardError as error:
        error.args = (f"{path}: {error}",)
        raise
    return GraphFile(path=path, card=card, sha256=sha256, size=len(content))


def _checked_against_digest(content: mmap.mmap) -> tuple[str, bool | None]:
    """Hash the file, and say whether its digest agrees; None if it does not end in one."""
    # The digest entry is the last, so the running hash before it is what the entry must hold.
    length = len(_metadata_entry(DIGEST_KEY, "0" * _DIGEST_LENGTH))
    whole = hashlib.sha256()
    with memoryview(content) as view:
        whole.update(view[:-length])
        expected = _metadata_entry(DIGEST_KEY, whole.hexdigest())
        whole.update(view[-length:])
    entry = content[-length:]
    if entry[:-_DIGEST_LENGTH] != expected[:-_DIGEST_LENGTH]:
        return whole.hexdigest(), None
    return whole.hexdigest(), entry == expected


def _damaged(path: Path) -> GraphFileError:
    message = (
        f"The graph {path} is damaged or was changed after it was exported: its content does not agree with "
        "its digest. Copy it again, or export the checkpoint again."
    )
    return GraphFileError(path, message)


def _entries(content: mmap.mmap) -> dict[str, str]:
    """Collect the metadata of a ModelProto."""
    found: dict[str, str] = {}
    has_graph = False
    for number, start, end in _fields(content, 0, len(content)):
        has_graph |= number == _GRAPH_FIELD
        if number == _METADATA_FIELD:
            entry = {n: content[a:b] for n, a, b in _fields(content, start, end)}
            key = entry.get(_KEY_FIELD, b"").decode()
            found[key] = entry.get(_VALUE_FIELD, b"").decode()
    if not has_graph:
        raise _MalformedError
    return found


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give number, start and end of each field of a message; only varints and delimited ones occur."""
    place = start
    while place < end:
        tag, place = _varint(content, place, end)
        length, after = _varint(content, place, end)
        if tag & 7 == _LENGTH_DELIMITED:
            place, after = after, after + length
        elif tag & 7 != _VARINT:
            raise _MalformedError
        if after > end:
            raise _MalformedError
        yield tag >> 3, place, after
        place = after


def _varint(content: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if place + shift >= end:
            raise _MalformedError
        byte = content[place + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, place + shift + 1
    raise _MalformedError


def _metadata_entry(key: str, value: str) -> bytes:
    content = _delimited(_KEY_FIELD, key.encode()) + _delimited(_VALUE_FIELD, value.encode())
    return _delimited(_METADATA_FIELD, content)


def _delimited(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _LENGTH_DELIMITED) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
