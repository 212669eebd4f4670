"""Rows of factors: how the features of a cell are summed, so that those that come of the same ones are hardly correlated.

Rows of as many +1 as -1 are called balanced: what all inputs have in common cancels in their sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balanced_signs", "hadamard", "opposite_signs", "orthogonal_rows"]

_TRIALS: Final = 64
"""Rows from which the one least like those before it is taken."""


def hadamard(order: int) -> NDArray[np.int64]:
    """Make Sylvester's matrix, shape (order, order), of orthogonal rows; the first is all +1, the others are balanced."""
    matrix = np.ones((1, 1), np.int64)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def balanced_signs(
    rng: np.random.Generator, n_rows: int, n_terms: int, *, given: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Draw balanced rows (an odd number of terms leaves one 0) that are little correlated among each other.

    Parameters
    ----------
    rng : numpy Generator
    n_rows, n_terms : int
    given : ndarray of int64, shape (n, n_terms), optional
        Rows to come first.

    Returns
    -------
    ndarray of int64, shape (n_rows, n_terms)
    """
    half = n_terms // 2
    start = np.array([1] * half + [-1] * half + [0] * (n_terms - 2 * half))
    rows = list(given[:n_rows]) if given is not None else [rng.permutation(start)]
    while len(rows) < n_rows:
        trials = np.array([rng.permutation(start) for _ in range(_TRIALS)])
        # Only what fires together makes clumps: a negative correlation does no harm.
        likeness = np.maximum(trials @ np.array(rows).T, 0) ** 4
        rows.append(trials[likeness.sum(axis=1).argmin()])
    return np.array(rows)


def opposite_signs(order: int) -> NDArray[np.int64]:
    """Make balanced rows that are orthogonal or opposite to each other, shape (2 order - 2, order), opposite ones adjacent."""
    rows = hadamard(order)[1:]
    return np.stack([rows, -rows], axis=1).reshape(-1, order)


def orthogonal_rows(rng: np.random.Generator, n_rows: int, n_terms: int) -> NDArray[np.float64]:
    """Draw rows of length 1 and sum 0, the first `n_terms - 1` orthogonal to each other, as are those that follow, and so on."""
    rotations = []
    for _ in range(-(-n_rows // (n_terms - 1))):
        columns = np.column_stack([np.ones(n_terms), rng.standard_normal((n_terms, n_terms - 1))])
        rotations.append(np.linalg.qr(columns)[0][:, 1:].T)
    return np.concatenate(rotations)[:n_rows]
