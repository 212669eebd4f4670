"""Digits as a ROOT RNTuple, written and read without ROOT: an entry an event, each column but the event a vector."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pxdbg_runtime.digits import COLUMN_DTYPES
from pxdbg_runtime.formats.interface import ContentError
from pxdbg_runtime.formats.root_events import (
    LIST_COLUMNS,
    MAX_TABLE_BYTES,
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

__all__ = ["check_ntuple", "read_ntuple", "write_rntuple"]

_INTEGERS: Final = re.compile(r"(?P<list>std::vector<|ROOT::VecOps::RVec<)?std::u?int(8|16|32|64)_t(?(list)>)")
_MAX_CLUSTER_ROWS: Final = 64_000_000
"""Most digits of a cluster, which is read at once. Ours have a million; those of ROOT, with its default of 128 MB
compressed, some forty, which take half a gigabyte."""


def write_rntuple(path: Path, metadata: FileMetadata) -> AbstractContextManager[DigitWriter]:
    """Write a ROOT file with an RNTuple; it is complete when the block ends without an error."""
    return write_events(path, metadata, _NTuple)


class _NTuple:
    def __init__(self, file: Any) -> None:  # noqa: ANN401
        types = {"event": "int64", **{name: f"var * {COLUMN_DTYPES[name]}" for name in LIST_COLUMNS}}
        self._ntuple = file.mkrntuple(TABLE_NAME, types, description=TITLE)

    def append(self, numbers: NDArray[np.int64], offsets: NDArray[np.int64], digits: Digits) -> None:
        """Append events, a cluster."""
        from awkward import Array, contents, index

        columns = [
            contents.ListOffsetArray(index.Index64(offsets), contents.NumpyArray(getattr(digits, name)))
            for name in LIST_COLUMNS
        ]
        self._ntuple.extend(Array(contents.RecordArray([contents.NumpyArray(numbers), *columns], list(COLUMN_DTYPES))))


def check_ntuple(ntuple: Any) -> bool:  # noqa: ANN401
    """Check that an RNTuple has the columns, as integers, and either all but the event as lists or none.

    Returns
    -------
    bool
        Whether they are lists, one an event.

    Raises
    ------
    ContentError
        If not, or if its description is too long.
    """
    _check_description(ntuple)
    is_list = {name: _is_list_field(ntuple, name) for name in COLUMN_DTYPES}
    if is_list["event"] or len({is_list[name] for name in LIST_COLUMNS}) > 1:
        message = "does not hold the columns of Digits: expected a list an event of each column but event, or no lists"
        raise ContentError(message)
    return is_list["charge"]


def read_ntuple(ntuple: Any) -> Iterator[Columns]:  # noqa: ANN401
    """Read the rows of an RNTuple in blocks; one cluster is in memory."""
    checker = EntryChecker()
    columns = {name: _find_columns(ntuple, name) for name in COLUMN_DTYPES}
    clusters = zip(ntuple.cluster_summaries, ntuple.page_link_list, strict=True)
    for index, (cluster, pages) in enumerate(clusters):
        _check_cluster(pages)
        entries = {name: _read_cluster(ntuple, columns[name], index) for name in COLUMN_DTYPES}
        for name, each in entries.items():
            if len(each) != cluster.num_entries:
                message = f"its field {name} has {len(each)} entries in a cluster, expected {cluster.num_entries}"
                raise ValueError(message)
        yield from flatten_entries(entries, checker)
    checker.finish()


def _find_columns(ntuple: Any, name: str) -> list[int]:  # noqa: ANN401
    """Find the column of a field of integers, or the columns of a list: its offsets and its values."""
    own = ntuple[name].field_id
    parents = [record.parent_field_id for record in ntuple.field_records]
    fields = [own, *(index for index, parent in enumerate(parents) if parent == own != index)]
    first = {column.field_id: index for index, column in reversed(list(enumerate(ntuple.column_records)))}
    return [first[field] for field in fields]


def _read_cluster(ntuple: Any, columns: list[int], index: int) -> Entries:  # noqa: ANN401
    # Not ntuple.arrays, which also reads the next cluster.
    parts = [ntuple.read_cluster_range(column, index, index + 1) for column in columns]
    if len(parts) == 1:
        return Entries(values=parts[0])
    offsets, values = parts
    return Entries(values=values, offsets=offsets.astype(np.int64, copy=False))


def _is_list_field(ntuple: Any, name: str) -> bool:  # noqa: ANN401
    if name not in ntuple.keys(recursive=False):
        message = f"it has no field {name}"
        raise ValueError(message)
    typename = ntuple[name].typename
    found = _INTEGERS.fullmatch(typename)
    if found is None:
        message = f"does not hold the columns of Digits: {name} must hold integers, but holds {typename}"
        raise ContentError(message)
    return found["list"] is not None


def _check_description(ntuple: Any) -> None:  # noqa: ANN401
    sizes = [ntuple.member(f"f{kind}{part}") for kind in ("NBytes", "Len") for part in ("Header", "Footer")]
    if sum(sizes) <= MAX_TABLE_BYTES:
        links = [group.page_list_link for group in ntuple.footer.cluster_group_records]
        sizes += [max(link.env_uncomp_size, link.locator.num_bytes) for link in links]
    if sum(sizes) > MAX_TABLE_BYTES:
        message = (
            f"has an RNTuple whose description takes {sum(sizes) / 1e6:,.0f} MB, expected at most "
            f"{MAX_TABLE_BYTES / 1e6:.0f} MB: generate it again"
        )
        raise ContentError(message)


def _check_cluster(columns: Any) -> None:  # noqa: ANN401
    n_rows = max((sum(page.num_elements for page in column.pages) for column in columns), default=0)
    if n_rows > _MAX_CLUSTER_ROWS:
        message = (
            f"has a cluster of {n_rows:,} digits, expected at most {_MAX_CLUSTER_ROWS:,}: "
            "generate it again, or write it with smaller clusters"
        )
        raise ContentError(message)
