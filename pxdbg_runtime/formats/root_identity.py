"""Make ROOT files the same in each run: with fixed dates, and UUIDs that depend on the content alone.

uproot and ROOT write the time into the header of each record and directory, and a random UUID into the header of the
file and its directory. Tools tell files apart by the UUID, and may keep what they read under it, so it must differ
where the content does.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final
from uuid import UUID

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["derive_uuid", "fix_dates", "fix_uuids"]

_DATE: Final = struct.pack(">I", 1 << 22 | 1 << 17)
"""1 January 1995, the first day that ROOT can write."""
_LARGE_FILE: Final = 1_000_000
"""Added to the version of a file whose offsets have 64 bits; 1000 to that of such a record or directory."""
_LARGE: Final = 1000
_KEY_DATE: Final = 10
_KEY_LENGTH: Final = 14
_KEY_PLACE: Final = 18
_KEY_BYTES: Final = 26
_HEADER_BYTES: Final = 64
_MAX_KEY_BYTES: Final = 4096
_KEY_VERSION: Final = 4
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Places in a file.

    Attributes
    ----------
    begin, end : int
        Of its records.
    uuid : int
        Of the file's UUID.
    directory : int
        Of its only directory.
    keys : int
        Of the record that lists what the directory holds.
    directory_uuid : int
    """

    begin: int
    end: int
    uuid: int
    directory: int
    keys: int
    directory_uuid: int


def derive_uuid(*texts: str, mark: bytes = b"") -> UUID:
    """Derive a UUID from texts that depend on all content of a file; it begins with the mark."""
    content = hashlib.sha256("\n".join(texts).encode()).digest()
    return UUID(bytes=(mark + content)[:16], version=4)


def fix_uuids(file: IO[bytes], uuid: UUID) -> None:
    """Set the UUIDs of a file and of its first directory.

    Parameters
    ----------
    file : binary file
        A complete ROOT file, opened to read and write.
    uuid : UUID
    """
    layout = _find_layout(file)
    for place in (layout.uuid, layout.directory_uuid):
        _write(file, place, uuid.bytes)


def fix_dates(file: IO[bytes]) -> None:
    """Set the dates in a file of uproot with one directory; see `fix_uuids`."""
    layout = _find_layout(file)
    for place in (layout.directory + 2, layout.directory + 6):  # of its creation, and of its last change
        _write(file, place, _DATE)
    for place in [*_find_record_dates(file, layout), *_find_listed_dates(file, layout)]:
        _write(file, place, _DATE)


def _find_layout(file: IO[bytes]) -> _Layout:
    header = _read(file, 0, _HEADER_BYTES)
    version, begin = struct.unpack_from(">ii", header, 4)
    is_large = version >= _LARGE_FILE
    (end,) = struct.unpack_from(">q" if is_large else ">i", header, 12)
    (n_name_bytes,) = struct.unpack_from(">i", header, 36 if is_large else 28)
    directory = begin + n_name_bytes
    (directory_version,) = struct.unpack(">h", _read(file, directory, 2))
    n_bytes = 8 if directory_version > _LARGE else 4
    keys = int.from_bytes(_read(file, directory + 18 + 2 * n_bytes, n_bytes), "big")
    return _Layout(
        begin=begin,
        end=end,
        uuid=59 if is_large else 47,
        directory=directory,
        keys=keys,
        directory_uuid=directory + 20 + 3 * n_bytes,
    )


def _find_record_dates(file: IO[bytes], layout: _Layout) -> Iterator[int]:
    """Find the dates in the headers of records, also of former ones in unused bytes: each header says where it is."""
    for start in range(0, layout.end, _CHUNK_BYTES):
        content = np.frombuffer(_read(file, start, _CHUNK_BYTES + _KEY_BYTES), np.uint8)
        n_places = min(_CHUNK_BYTES, len(content) - _KEY_BYTES + 1)
        if n_places < 1:
            return
        # The lowest 16 bits of the place, which are the last of four bytes, or of eight in a file of over 2 GB.
        expected = np.arange(start, start + n_places)
        is_here = np.zeros(n_places, dtype=bool)
        for last in (_KEY_PLACE + 3, _KEY_PLACE + 7):
            is_here |= (content[last : last + n_places] == expected & 0xFF) & (
                content[last - 1 : last - 1 + n_places] == expected >> 8 & 0xFF
            )
        for index in np.flatnonzero(is_here).tolist():
            if _is_header(content[index : index + _KEY_BYTES].tobytes(), start + index):
                yield start + index + _KEY_DATE


def _is_header(content: bytes, place: int) -> bool:
    version, n_bytes = (struct.unpack_from(">h", content, at)[0] for at in (4, _KEY_LENGTH))
    (stated,) = struct.unpack_from(">q" if version > _LARGE else ">i", content, _KEY_PLACE)
    return bool(stated == place and version % _LARGE == _KEY_VERSION and _KEY_BYTES <= n_bytes <= _MAX_KEY_BYTES)


def _find_listed_dates(file: IO[bytes], layout: _Layout) -> Iterator[int]:
    """Find the dates in the copies of headers that list what the directory holds."""
    (n_bytes,) = struct.unpack(">h", _read(file, layout.keys + _KEY_LENGTH, 2))
    place = layout.keys + n_bytes
    (n_keys,) = struct.unpack(">i", _read(file, place, 4))
    place += 4
    for _ in range(n_keys):
        yield place + _KEY_DATE
        (n_bytes,) = struct.unpack(">h", _read(file, place + _KEY_LENGTH, 2))
        place += n_bytes


def _read(file: IO[bytes], place: int, n_bytes: int) -> bytes:
    file.seek(place)
    return file.read(n_bytes)


def _write(file: IO[bytes], place: int, content: bytes) -> None:
    file.seek(place)
    file.write(content)
