"""Read the digits of overlay files, ours and those of basf2, with uproot: what `RootReader` needs."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS
from pxdbg_runtime.sensors import MAX_CHARGE_ADU

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["is_overlay", "read_overlay_blocks", "read_overlay_texts"]

_MAX_TREE_BYTES: Final = 256 << 20
"""Longest description of a tree that is read; complete overlay files have hundreds of branches."""
_MAX_BASKET_BYTES: Final = 128 << 20
_DESCRIPTION: Final = "m_dataDescription"


def is_overlay(file: Any) -> bool:  # noqa: ANN401  # of uproot
    """Tell whether an open file of uproot has the trees of an overlay file, whatever is in them."""
    names = {name.partition(";")[0] for name in file.keys(recursive=False)}
    return bool(names & {TREE, PERSISTENT})


def read_overlay_texts(file: Any) -> StoredTexts:  # noqa: ANN401
    """Read the texts of an open overlay file, and check that the digits have the layout of `DIGIT_CLASS`."""
    texts = _read_texts(file)
    _count_digits(file)
    return texts


def read_overlay_blocks(file: Any) -> Iterator[Columns]:  # noqa: ANN401
    """Read the rows of an open overlay file, whole entries until they have `BLOCK_ROWS`.

    The entries of files with our texts have the event numbers that these tell of, those of other files the numbers 0,
    1, 2, …: files of basf2 join events of many runs, whose numbers are not unique.
    """
    tree, counts = _count_digits(file)
    numbers = _number_entries(_read_texts(file), len(counts))
    for start, stop in _group_entries(counts):
        columns = {
            name: _read_entries(tree[f"{DIGITS}/{DIGITS}.{member}"], start, counts[start:stop])
            for name, member in DIGIT_MEMBERS.items()
        }
        _check_charge(columns["charge"])
        yield {"event": np.repeat(numbers[start:stop], counts[start:stop]), **columns}


def _read_texts(file: Any) -> StoredTexts:  # noqa: ANN401
    import uproot

    description: dict[str, str] = {}
    persistent = _open_tree(file, PERSISTENT) if PERSISTENT in file else None
    if persistent is None or FILE_META_DATA not in persistent:
        # Each overlay file has it. Without this check a damaged name would hide our texts, and with them the digest.
        message = f"has no branch {FILE_META_DATA} in a tree called {PERSISTENT}, as overlay files have"
        raise ContentError(message)
    if persistent.num_entries == 1:  # joined files have one for each part
        parts = [f"{FILE_META_DATA}/{_DESCRIPTION}/{_DESCRIPTION}.{part}" for part in ("first", "second")]
        if all(part in persistent for part in parts):
            # Given, because uproot would find it through the file's own description of classes.
            strings = uproot.AsObjects(uproot.containers.AsArray(True, False, uproot.containers.AsString(False), ()))
            keys, values = (persistent[part].array(strings, library="np")[0] for part in parts)
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
    tree = _open_tree(file, TREE) if TREE in file else None
    if tree is None or DIGITS not in tree:
        message = f"has no branch {DIGITS} in a tree called {TREE}, as overlay files with PXD background have"
        raise ContentError(message)
    if tree.num_entries > MAX_FILE_EVENTS:
        message = f"holds {tree.num_entries:,} events, expected at most {MAX_FILE_EVENTS:,}"
        raise ContentError(message)
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


def _read_entries(branch: Any, start: int, counts: NDArray[np.int64]) -> NDArray[np.generic]:  # noqa: ANN401
    """Read the values of consecutive entries, which must be as many in each as the array had elements."""
    stop = start + len(counts)
    offsets = branch.entry_offsets
    n_separate = branch.num_baskets - len(branch.embedded_baskets)  # the others are part of the tree's description
    for index in range(max(0, bisect_right(offsets, start) - 1), min(n_separate, bisect_left(offsets, stop))):
        n_bytes = branch.basket_key(index).data_uncompressed_bytes
        if n_bytes > _MAX_BASKET_BYTES:
            message = f"has a basket of {n_bytes / 1e6:,.0f} MB, expected at most {_MAX_BASKET_BYTES / 1e6:.0f} MB"
            raise ContentError(message)
    layout = branch.array(entry_start=start, entry_stop=stop, library="ak").layout.to_ListOffsetArray64(True)
    ends = np.asarray(layout.offsets.data)
    if not np.array_equal(np.diff(ends), counts):
        message = f"the number of values in {branch.name} is not that of the digits"
        raise ValueError(message)
    return np.asarray(layout.content.data)[: ends[-1]]


def _check_charge(charge: NDArray[np.generic]) -> None:
    """Check before charges are narrowed to eight bits that they fit."""
    largest = int(charge.max(initial=0))
    if largest > MAX_CHARGE_ADU:
        message = (
            f"holds a digit of {largest} ADU, but the PXD reads out at most {MAX_CHARGE_ADU}: its digits are sums of "
            "several events, which digit files do not hold; read it with uproot"
        )
        raise ContentError(message)


def _open_tree(file: Any, name: str) -> Any:  # noqa: ANN401
    n_bytes = file.key(name).data_uncompressed_bytes
    if n_bytes > _MAX_TREE_BYTES:
        message = f"has a tree described in {n_bytes / 1e6:,.0f} MB, expected at most {_MAX_TREE_BYTES / 1e6:.0f} MB"
        raise ContentError(message)
    return file[name]
