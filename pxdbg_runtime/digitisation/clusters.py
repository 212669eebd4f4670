"""8-connected clusters of an image, found in one pass over sorted digits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digitisation.jit import kernel
from pxdbg_runtime.sensors import N_U_CELLS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ROWS_PER_IMAGE", "number_clusters"]

ROWS_PER_IMAGE: Final = N_U_CELLS + 1
"""Rows from one image to the next if several are given at once: the empty row separates their clusters."""


@kernel
def number_clusters(row: NDArray[np.int64], column: NDArray[np.int64], number: NDArray[np.int64]) -> int:
    """Assign a number to each 8-connected cluster of hits.

    Parameters
    ----------
    row, column : ndarray of int64, shape (n,)
        Cells of the hits, without duplicates, ordered by row, then column.
    number : ndarray of int64, shape (n,)
        Overwritten with the number of each hit's cluster, from 0 on, in the order of the clusters' first hits.

    Returns
    -------
    int
        Number of clusters.
    """
    parent = np.arange(len(row))
    above = 0  # the first hit of the previous row that can touch; it only advances, as the hits are ordered
    for hit in range(len(row)):
        if hit > 0 and row[hit - 1] == row[hit] and column[hit - 1] == column[hit] - 1:
            _join(parent, hit - 1, hit)
        while row[above] < row[hit] - 1 or (row[above] == row[hit] - 1 and column[above] < column[hit] - 1):
            above += 1
        neighbour = above
        while row[neighbour] == row[hit] - 1 and column[neighbour] <= column[hit] + 1:
            _join(parent, neighbour, hit)
            neighbour += 1
    n_clusters = 0
    for hit in range(len(row)):
        root = _find_root(parent, hit)
        if root == hit:  # the first hit of its cluster
            number[hit] = n_clusters
            n_clusters += 1
        else:
            number[hit] = number[root]
    return n_clusters


@kernel
def _find_root(parent: NDArray[np.int64], hit: int) -> int:
    """Find the first hit of a tree, and halve the path to it."""
    while parent[hit] != hit:
        parent[hit] = parent[parent[hit]]
        hit = parent[hit]
    return hit


@kernel
def _join(parent: NDArray[np.int64], one: int, other: int) -> None:
    """Join two trees; the earlier root becomes the common one."""
    first = _find_root(parent, one)
    second = _find_root(parent, other)
    parent[max(first, second)] = min(first, second)
