"""Read the digits of overlay files, ours and those of basf2, with uproot."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.formats.interface import (
    BLOCK_ROWS,
    DIGEST_KEY,
    MAX_METADATA_BYTES,
    METADATA_KEY,
    Columns,
    ContentError,
    StoredTexts,
)
from pxdbg_runtime.formats.metadata import FileMetadata
from pxdbg_runtime.formats.overlay_classes import DIGIT_MEMBERS, DIGITS, FILE_META_DATA, PERSISTENT, TREE
from pxdbg_runtime.regular_file import open_regular
from pxdbg_runtime.sensors import MAX_CHARGE_ADU

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["OverlayReader", "is_overlay"]

_DESCRIPTION: Final = "m_dataDescription"


def is_overlay(file: Any) -> bool:  # noqa: ANN401  # of uproot
    """Tell whether an open file of uproot is an overlay file, or looks like one that lacks its digits."""
    names = {name.partition(";")[0] for name in file.keys(recursive=False)}
    return PERSISTENT in names or (TREE in names and DIGITS in file[TREE])


class OverlayReader:
    """Reads an overlay file.

    The entries of files with our texts have the event numbers that these tell of, those of other files the numbers 0,
    1, 2, …: files of basf2 join events of many runs, whose numbers are not unique.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_texts(self) -> StoredTexts:
        """Read the texts, and check that the digits have the layout of `DIGIT_CLASS`."""
        with self._open() as file:
            texts = _read_texts(file)
            _count_digits(file)
        return texts

    def read_blocks(self) -> Iterator[Columns]:
        """Read the rows, whole entries until they have `BLOCK_ROWS`."""
        with self._open() as file:
            tree, counts = _count_digits(file)
            numbers = _number_entries(_read_texts(file), len(counts))
            for start, stop in _group_entries(counts):
                columns = _read_entries(tree, start, stop)
                yield {"event": np.repeat(numbers[start:stop], counts[start:stop]), **columns}

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        import uproot

        with (
            open_regular(self._path) as content,
            uproot.open(content, object_cache=None, array_cache=None) as file,
        ):
            yield file


def _read_texts(file: Any) -> StoredTexts:  # noqa: ANN401
    description: dict[str, str] = {}
    if PERSISTENT in file and file[PERSISTENT].num_entries == 1:  # joined files have one for each part
        parts = [f"{FILE_META_DATA}/{_DESCRIPTION}/{_DESCRIPTION}.{part}" for part in ("first", "second")]
        tree = file[PERSISTENT]
        if all(part in tree for part in parts):
            keys, values = (tree[part].array(library="np")[0] for part in parts)
            description = dict(zip(keys, values, strict=True))
    texts = {}
    for key in (METADATA_KEY, DIGEST_KEY):
        text = description.get(key)
        if text is not None and len(text) > MAX_METADATA_BYTES:
            message = f"has metadata of {len(text):,} characters, expected at most {MAX_METADATA_BYTES:,}"
            raise ContentError(message)
        texts[key] = text
    return StoredTexts(metadata=texts[METADATA_KEY], digest=texts[DIGEST_KEY])


def _count_digits(file: Any) -> tuple[Any, NDArray[np.int64]]:  # noqa: ANN401
    """Count the digits of each entry; returns the tree too."""
    if TREE not in file or DIGITS not in file[TREE]:
        message = f"has no branch {DIGITS} in a tree called {TREE}, as overlay files with PXD background have"
        raise ContentError(message)
    tree = file[TREE]
    for member in DIGIT_MEMBERS.values():
        name = f"{DIGITS}/{DIGITS}.{member}"
        kind = tree[name].typename if name in tree else "missing"
        if kind != "uint16_t[]":
            message = (
                f"holds {DIGITS} of another layout than that of basf2 since 2016: {member} is {kind}, expected "
                "uint16_t[]"
            )
            raise ContentError(message)
    counts = tree[DIGITS].array(library="np").astype(np.int64)
    if len(counts) and counts.min() < 0:
        message = "holds an event with fewer than no digits"
        raise ContentError(message)
    return tree, counts


def _number_entries(texts: StoredTexts, n_entries: int) -> NDArray[np.int64]:
    if texts.metadata is None:
        return np.arange(n_entries)
    numbers = FileMetadata.from_json(texts.metadata).event_numbers
    if len(numbers) != n_entries:
        message = f"holds {n_entries:,} events, but its metadata describe {len(numbers):,}"
        raise ContentError(message)
    return numbers


def _group_entries(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Join consecutive entries while they have at most `BLOCK_ROWS` digits."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK_ROWS, side="right")))
        yield start, stop
        start = stop


def _read_entries(tree: Any, start: int, stop: int) -> Columns:  # noqa: ANN401
    columns: Columns = {}
    for name, member in DIGIT_MEMBERS.items():
        jagged = tree[f"{DIGITS}/{DIGITS}.{member}"].array(entry_start=start, entry_stop=stop, library="ak")
        columns[name] = np.asarray(jagged.layout.content.data[jagged.layout.offsets[0] : jagged.layout.offsets[-1]])
    largest = int(columns["charge"].max(initial=0))
    if largest > MAX_CHARGE_ADU:
        message = (
            f"holds a digit of {largest} ADU, but one digit of the PXD has at most {MAX_CHARGE_ADU}: its digits were "
            "added to others, or it is damaged"
        )
        raise ContentError(message)
    return columns
