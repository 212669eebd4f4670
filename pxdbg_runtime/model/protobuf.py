"""The encoding of protocol buffers, as far as graph files need it: fields of messages, walked without a schema.

Nothing is decoded but tags and lengths, so that a hostile file costs no more than its bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["LENGTH_DELIMITED", "VARINT", "MalformedError", "encode_delimited", "read_varint", "walk_fields"]

VARINT: Final = 0
LENGTH_DELIMITED: Final = 2
_FIXED_LENGTHS: Final = {1: 8, 5: 4}
"""Bytes of the wire types for 64-bit and 32-bit numbers."""
_MAX_VARINT_BYTES: Final = 10
_MAX_TAG: Final = 2**32 - 1


class MalformedError(Exception):
    """The bytes do not follow the protocol-buffer encoding."""


def walk_fields(content: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk the fields of a message.

    Parameters
    ----------
    content : bytes
    start, end : int
        Place of the message.

    Yields
    ------
    number, wire_type, start, end : int
        Of each field; start and end are those of its value.

    Raises
    ------
    MalformedError
        If the bytes are not a message.
    """
    place = start
    while place < end:
        tag, place = read_varint(content, place, end)
        number, wire_type = tag >> 3, tag & 7
        if not number or tag > _MAX_TAG:
            raise MalformedError
        if wire_type == VARINT:
            after = read_varint(content, place, end)[1]
        elif wire_type == LENGTH_DELIMITED:
            length, place = read_varint(content, place, end)
            after = place + length
        elif wire_type in _FIXED_LENGTHS:
            after = place + _FIXED_LENGTHS[wire_type]
        else:
            raise MalformedError
        if after > end:
            raise MalformedError
        yield number, wire_type, place, after
        place = after


def read_varint(content: bytes, place: int, end: int) -> tuple[int, int]:
    """Read an integer, and find the place after it.

    Raises
    ------
    MalformedError
        If there is none before `end`.
    """
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if place + shift >= end:
            raise MalformedError
        byte = content[place + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, place + shift + 1
    raise MalformedError


def encode_delimited(number: int, content: bytes) -> bytes:
    """Encode a field that holds bytes: a text or a message."""
    return _encode_varint(number << 3 | LENGTH_DELIMITED) + _encode_varint(len(content)) + content


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
