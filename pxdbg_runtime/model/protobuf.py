"""The part of the protocol-buffer encoding that graph files need: the fields of messages, without a schema.

Only tags and lengths are decoded, so that a hostile file costs no more than its bytes.
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
    """Iterate over the fields of a message.

    Parameters
    ----------
    content : bytes
    start, end : int
        Range of its bytes in `content`.

    Yields
    ------
    number, wire_type, start, end : int
        Of each field; start and end are the range of its value.

    Raises
    ------
    MalformedError
        If the bytes are not a message.
    """
    position = start
    while position < end:
        tag, position = read_varint(content, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not number or tag > _MAX_TAG:
            raise MalformedError
        if wire_type == VARINT:
            after = read_varint(content, position, end)[1]
        elif wire_type == LENGTH_DELIMITED:
            length, position = read_varint(content, position, end)
            after = position + length
        elif wire_type in _FIXED_LENGTHS:
            after = position + _FIXED_LENGTHS[wire_type]
        else:
            raise MalformedError
        if after > end:
            raise MalformedError
        yield number, wire_type, position, after
        position = after


def read_varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    """Read an integer; return it and the index of the next byte.

    Raises
    ------
    MalformedError
        If it does not end before `end`.
    """
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if position + shift >= end:
            raise MalformedError
        byte = content[position + shift]
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    raise MalformedError


def encode_delimited(number: int, content: bytes) -> bytes:
    """Encode a field of bytes: a text or a message."""
    return _encode_varint(number << 3 | LENGTH_DELIMITED) + _encode_varint(len(content)) + content


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
