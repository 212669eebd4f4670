"""Digits as a ROOT TTree, written and read without ROOT: an entry an event, arrays that share the length n_digits."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.formats.interface import ContentError
from pxdbg_runtime.formats.root_events import (
    LIST_COLUMNS,
    TABLE_NAME,
    TITLE,
    Entries,
    flatten_entries,
    write_events,
)
from pxdbg_runtime.formats.whole_events import EntryChecker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.interface import Columns, DigitWriter
    from pxdbg_runtime.formats.metadata import FileMetadata

__all__ = ["check_tree", "read_tree", "write_ttree"]

_COUNTER: Final = "n_digits"
_RECORDS: Final = "digit"
"""Name of the records of the lists, which is not in the file."""
_MAX_BASKET_BYTES: Final = 128 << 20
"""Largest basket that is read, uncompressed; ours have 2 MB, those of ROOT up to some ten."""
_READ_BYTES: Final = 4 << 20
"""Small baskets of a column are read together up to this size, uncompressed."""


def write_ttree(path: Path, metadata: FileMetadata) -> AbstractContextManager[DigitWriter]:
    """Write a ROOT file with a TTree; it is complete when the block ends without an error."""
    return write_events(path, metadata, _Tree)


class _Tree:
    def __init__(self, file: Any) -> None:  # noqa: ANN401
        # Lists of records, so that the columns share one counter: releases of uproot before 5.7.7 fail if lists do.
        record = ", ".join(f"{name}: {COLUMN_DTYPES[name]}" for name in LIST_COLUMNS)
        types = {"event": "int64", _RECORDS: f"var * {{{record}}}"}
        self._tree = file.mktree(
            TABLE_NAME, types, title=TITLE, counter_name=lambda _name: _COUNTER, field_name=lambda _record, name: name
        )

    def append(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64], digits: Digits) -> None:
        """Append events, a basket of each column."""
        from awkward import Array, contents, index

        columns = [contents.NumpyArray(getattr(digits, name)) for name in LIST_COLUMNS]
        records = contents.RecordArray(columns, list(LIST_COLUMNS), length=len(digits))
        lists = Array(contents.ListOffsetArray(index.Index64(offsets), records))
        self._tree.extend({"event": numbers, _RECORDS: lists})


def check_tree(tree: Any) -> bool:  # noqa: ANN401
    """Check that a TTree has the columns, as integers, and either all but the event as lists or none.

    Returns
    -------
    bool
        Whether they are lists, one an event.

    Raises
    ------
    ContentError
        If not.
    """
    is_list = {name: _is_list_branch(tree, name) for name in COLUMN_DTYPES}
    if is_list["event"] or len({is_list[name] for name in LIST_COLUMNS}) > 1:
        message = "does not hold the columns of Digits: expected a list an event of each column but event, or no lists"
        raise ContentError(message)
    return is_list["charge"]


def _is_list_branch(tree: Any, name: str) -> bool:  # noqa: ANN401
    import uproot

    branches = [branch for branch in tree.branches if branch.name == name]
    if len(branches) != 1:
        message = f"it has {len(branches) or 'no'} branches {name}, expected one"
        raise ValueError(message)
    interpretation = branches[0].interpretation
    is_list = isinstance(interpretation, uproot.AsJagged)
    content = interpretation.content if is_list else interpretation
    if not isinstance(content, uproot.AsDtype) or content.to_dtype.kind not in "iu" or content.inner_shape:
        message = f"does not hold the columns of Digits: {name} must hold integers, but holds {branches[0].typename}"
        raise ContentError(message)
    return is_list


def read_tree(tree: Any) -> Iterator[Columns]:  # noqa: ANN401
    """Read the rows of a TTree in blocks; of each column, one basket is in memory, or several small ones."""
    checker = EntryChecker()
    readers = {name: _read_branch(tree[name]) for name in COLUMN_DTYPES}
    current = {name: next(reader, None) for name, reader in readers.items()}
    while any(current.values()):
        # The baskets of the columns may end at different entries.
        n_entries = min(len(entries) if entries else 0 for entries in current.values())
        if not n_entries:
            message = "its columns differ in length"
            raise ValueError(message)
        selected = {name: entries.select(0, n_entries) for name, entries in current.items() if entries}
        yield from flatten_entries(selected, checker)
        for name, entries in current.items():
            if entries and len(entries) > n_entries:
                current[name] = entries.select(n_entries, len(entries))
            else:
                current[name] = next(readers[name], None)
    checker.finish()


def _read_branch(branch: Any) -> Iterator[Entries]:  # noqa: ANN401
    """Read a column, some baskets at a time."""
    stops = branch.entry_offsets
    n_separate = branch.num_baskets - len(branch.embedded_baskets)  # the others are part of the TTree's description
    start, n_bytes = 0, 0
    for index, (first, stop) in enumerate(itertools.pairwise(stops)):
        if not start <= first <= stop:
            message = f"the baskets of {branch.name} overlap"
            raise ValueError(message)
        if index < n_separate:
            n_bytes += _measure_basket(branch, index)
        if stop > start and (n_bytes >= _READ_BYTES or stop == stops[-1]):
            yield _convert_array(branch.array(entry_start=start, entry_stop=stop, library="ak"))
            start, n_bytes = stop, 0


def _convert_array(array: Any) -> Entries:  # noqa: ANN401
    if array.ndim == 1:
        return Entries(values=array.to_numpy(allow_missing=False))
    layout = array.layout.to_ListOffsetArray64(True)
    offsets = np.asarray(layout.offsets.data)
    return Entries(values=np.asarray(layout.content.data)[: offsets[-1]], offsets=offsets)


def _measure_basket(branch: Any, index: int) -> int:  # noqa: ANN401
    n_bytes: int = branch.basket_key(index).data_uncompressed_bytes
    if n_bytes > _MAX_BASKET_BYTES:
        message = (
            f"has a basket of {n_bytes / 1e6:,.0f} MB, expected at most {_MAX_BASKET_BYTES / 1e6:.0f} MB: "
            "generate it again, or write it with smaller baskets"
        )
        raise ContentError(message)
    return n_bytes
