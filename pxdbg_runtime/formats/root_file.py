"""Read digits from ROOT files without ROOT: a TTree or RNTuple of ours, or one that another tool rewrote."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from pxdbg_runtime.errors import ArgumentValueError, JsonFieldError, one_line
from pxdbg_runtime.formats.interface import DIGEST_KEY, MAX_METADATA_BYTES, METADATA_KEY, ContentError, StoredTexts
from pxdbg_runtime.formats.metadata import FileMetadata
from pxdbg_runtime.formats.overlay_file import is_overlay, read_overlay_blocks, read_overlay_texts
from pxdbg_runtime.formats.rntuple import check_ntuple, read_ntuple
from pxdbg_runtime.formats.root_events import MAX_TABLE_BYTES, TABLE_NAME, UUID_MARK
from pxdbg_runtime.formats.ttree import check_tree, read_tree
from pxdbg_runtime.regular_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pxdbg_runtime.formats.interface import Columns

__all__ = ["RootReader"]

_RNTUPLE: Final = "ROOT::RNTuple"
_FILE_CLASSES: Final = frozenset({"TLeafG"})
"""Classes that TTrees with integers need and uproot lacks: columns of `long`."""
_UUID_BYTES: Final = 512
"""The header of a file and its first record, which hold the UUIDs."""
_MAX_CLASS_BYTES: Final = 16 << 20
"""Longest descriptions of classes that are read; those of TTree and what it needs have 20 kB."""
_WORD: Final = re.compile(r"\w*", re.ASCII)


class RootReader:
    """Reads the digits of a ROOT file; finds out whether they are in a TTree, an RNTuple or an overlay file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the columns exist and hold integers."""
        with _convert_errors(), _open_root(self._path) as (file, is_ours):
            if _is_overlay(file):
                return read_overlay_texts(file)
            table, has_lists = _open_table(file)
            texts = _read_texts(file) if is_ours else _read_other_texts(file)
            return dataclasses.replace(texts, n_events=table.num_entries if has_lists else None)

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows in blocks."""
        with _convert_errors(), _open_root(self._path) as (file, _is_ours):
            if _is_overlay(file):
                yield from read_overlay_blocks(file)
                return
            table, _has_lists = _open_table(file)
            yield from (read_ntuple if table.classname == _RNTUPLE else read_tree)(table)


@contextlib.contextmanager
def _convert_errors() -> Iterator[None]:
    """Turn what uproot alone raises for damaged bytes into a `ValueError`."""
    import cramjam
    import uproot

    try:
        yield
    except (AssertionError, AttributeError, cramjam.DecompressionError) as error:
        raise ValueError(one_line(error)) from None
    except uproot.deserialization.DeserializationError as error:
        # Its own text has pages of what was read before, with addresses in memory.
        raise ValueError(error.message) from None


@contextlib.contextmanager
def _open_root(path: Path) -> Iterator[tuple[Any, bool]]:
    """Open a file: as an `uproot.ReadOnlyDirectory`, and whether our writer wrote it."""
    import uproot

    with open_regular(path) as content:
        # The UUIDs of the file and of its only directory; a damaged byte changes one of them alone.
        is_ours = UUID_MARK in content.read(_UUID_BYTES)
        bounded: Any = _BoundedFile(content, path)
        with uproot.open(bounded, object_cache=None, array_cache=None, use_threads=False) as file:
            if file.file.fEND > bounded.size:
                message = f"is truncated: it has {bounded.size:,} bytes, expected {file.file.fEND:,}"
                raise ContentError(message)
            file.file.hook_before_read_decompress_streamers = _check_classes
            file.file._streamers = {} if is_ours else _select_classes(file.file)
            yield file, is_ours


def _check_classes(*, streamer_key: Any, **_others: object) -> None:  # noqa: ANN401
    n_bytes = streamer_key.data_uncompressed_bytes
    if n_bytes > _MAX_CLASS_BYTES:
        message = (
            f"has descriptions of classes of {n_bytes / 1e6:,.0f} MB, expected at most {_MAX_CLASS_BYTES / 1e6:.0f}: "
            "generate it again"
        )
        raise ContentError(message)


def _select_classes(file: Any) -> dict[str, Any]:  # noqa: ANN401
    """Select descriptions of classes in a file. uproot compiles Python code from those of all classes that it lacks."""
    return {
        name: versions
        for name, versions in file.streamers.items()
        if name in _FILE_CLASSES
        and all(
            _WORD.fullmatch(f"{element.name}{element.typename}")
            for info in versions.values()
            for element in info.elements
        )
    }


class _BoundedFile:
    """A file whose `read` asks for no more bytes than there are: Python reserves memory for all that it asks for."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self.size = file.seek(0, io.SEEK_END)

    def __repr__(self) -> str:
        return str(self._path)  # which the errors of uproot then name

    def read(self, n_bytes: int = -1) -> bytes:
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if n_bytes < 0 else min(n_bytes, left))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _is_overlay(file: Any) -> bool:  # noqa: ANN401
    """Whether a file has digits for basf2, and none of ours."""
    return TABLE_NAME not in file and is_overlay(file)


def _open_table(file: Any) -> tuple[Any, bool]:  # noqa: ANN401
    """Open the TTree or RNTuple with the digits, and check its columns: whether they are lists, one an event."""
    classname = file.classnames(recursive=False, cycle=False).get(TABLE_NAME)
    if classname not in {"TTree", _RNTUPLE}:
        message = f"holds no TTree or RNTuple with the name {TABLE_NAME}, and no digits for basf2, expected one of them"
        raise ContentError(message)
    n_bytes = file.key(TABLE_NAME).data_uncompressed_bytes
    if n_bytes > MAX_TABLE_BYTES:
        message = (
            f"has a TTree whose description takes {n_bytes / 1e6:,.0f} MB, expected at most "
            f"{MAX_TABLE_BYTES / 1e6:.0f} MB: generate it again, or write it with larger baskets"
        )
        raise ContentError(message)
    table = file[TABLE_NAME]
    return table, (check_ntuple if classname == _RNTUPLE else check_tree)(table)


def _read_texts(file: Any) -> StoredTexts:  # noqa: ANN401
    """Read the texts of a file of ours."""
    metadata, digests = _read_strings(file, METADATA_KEY), _read_strings(file, DIGEST_KEY)
    if not digests:
        message = "its digest is missing"
        raise ValueError(message)
    return StoredTexts(metadata=metadata[0] if metadata else None, digest=digests[0])


def _read_other_texts(file: Any) -> StoredTexts:  # noqa: ANN401
    """Read the texts of another tool's file: hadd copies those of all that it merges, but their digests fit no rows."""
    return StoredTexts(metadata=_join_metadata(_read_strings(file, METADATA_KEY)), digest=None)


def _read_strings(file: Any, name: str) -> list[str]:  # noqa: ANN401
    """Read all TObjStrings of a name, the newest first; hadd keeps one of each file that it merges."""
    classes = file.classnames(recursive=False, filter_name=name)
    cycles = [int(key.rpartition(";")[2]) for key, classname in classes.items() if classname == "TObjString"]
    keys = [file.key(f"{name};{cycle}") for cycle in sorted(cycles, reverse=True)]
    n_bytes = sum(max(key.data_uncompressed_bytes, key.data_compressed_bytes) for key in keys)
    if n_bytes > MAX_METADATA_BYTES:
        message = f"has metadata of {n_bytes:,} bytes, expected at most {MAX_METADATA_BYTES:,}"
        raise ContentError(message)
    return [str(key.get()).encode().decode() for key in keys]  # bytes that are no UTF-8 raise UnicodeEncodeError


def _join_metadata(texts: list[str]) -> str | None:
    """Join the metadata of merged files; None if there are none, or they are not those of one sample."""
    texts = list(dict.fromkeys(texts))
    if len(texts) < 2:
        return texts[0] if texts else None
    try:
        return FileMetadata(jobs=tuple(job for text in texts for job in FileMetadata.from_json(text).jobs)).to_json()
    except (ArgumentValueError, JsonFieldError):
        return None
