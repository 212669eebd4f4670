"""White noise in the first feature map, and signed sums that keep it white.

A sum of n uncorrelated features with weights +-1/sqrt(n) again has variance 1. Two sums over the same features are
uncorrelated if their rows of signs are orthogonal. In a balanced row, with as many +1 as -1, what the terms have in
common cancels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from export.families.generator_module import LATENT_SIZE, SEED_HEIGHT, SEED_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["N_FEATURES", "draw_balanced_signs", "draw_white_noise", "list_opposite_signs"]

_ORDERS: Final = (16, 16, 16, 16, 16, 8, 4, 2)
"""Orders of the Hadamard matrices that mix the latents."""
N_FEATURES: Final = sum(_ORDERS)
"""Features in each cell of the first map: all latents but the one of the level and one more."""
_CANDIDATES: Final = 64


def draw_white_noise(
    rng: np.random.Generator,
    *,
    orders: Sequence[int] = _ORDERS,
    n_cells: int = SEED_HEIGHT * SEED_WIDTH,
    n_latents: int = LATENT_SIZE,
) -> NDArray[np.float64]:
    """Draw the weights that turn the latents into the features of the first map.

    In each cell, the features are an orthogonal transformation of latents by Hadamard matrices and random signs.
    Latent 0 has no part in it, because it sets the level.

    Parameters
    ----------
    rng : numpy Generator
    orders : sequence of int
        Orders of the Hadamard matrices; their sum is the number of features, smaller than `n_latents`.
    n_cells, n_latents : int

    Returns
    -------
    ndarray of float64, shape (features, n_cells, n_latents)
        Weights by feature, cell and latent.
    """
    n_features = sum(orders)
    mixing = np.zeros((n_features, n_features))
    first = 0
    for order in orders:
        block = slice(first, first + order)
        mixing[block, block] = _build_hadamard(order) / np.sqrt(order)
        first += order
    weights = np.zeros((n_features, n_cells, n_latents))
    for cell in range(n_cells):
        latents = 1 + rng.permutation(n_latents - 1)[:n_features]
        signs = rng.integers(0, 2, n_features) * 2 - 1
        weights[:, cell, latents] = (mixing * signs)[rng.permutation(n_features)]
    return weights


def _build_hadamard(order: int) -> NDArray[np.int64]:
    """Build Sylvester's Hadamard matrix of an order that is a power of two."""
    matrix = np.ones((1, 1), np.int64)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def draw_balanced_signs(
    rng: np.random.Generator,
    n_rows: int,
    n_terms: int,
    *,
    first_rows: NDArray[np.int64] | None = None,
    allows_opposite: bool = True,
) -> NDArray[np.int64]:
    """Draw balanced rows of signs that are little correlated with each other.

    Each new row is the best of 64 permutations. By default only positive correlations count: clusters clump where
    several features exceed their thresholds together.

    Parameters
    ----------
    rng : numpy Generator
    n_rows, n_terms : int
        If the number of terms is odd, one of them has the weight 0.
    first_rows : ndarray of int64, shape (n, n_terms), optional
        Rows to begin with; by default one that is drawn.
    allows_opposite : bool
        Whether rows may be opposite: no two thresholds are then exceeded together, but sums of sums cancel.

    Returns
    -------
    ndarray of int64, shape (n_rows, n_terms)
        -1, 0 or 1.
    """
    half = n_terms // 2
    balanced = np.array([1] * half + [-1] * half + [0] * (n_terms - 2 * half))
    rows = [rng.permutation(balanced)] if first_rows is None else list(first_rows[:n_rows])
    while len(rows) < n_rows:
        candidates = np.array([rng.permutation(balanced) for _ in range(_CANDIDATES)])
        products = candidates @ np.array(rows).T
        penalties = (np.maximum(products, 0) if allows_opposite else products) ** 4
        rows.append(candidates[penalties.sum(axis=1).argmin()])
    return np.array(rows)


def list_opposite_signs(n_terms: int) -> NDArray[np.int64]:
    """List the balanced rows of a Hadamard matrix, cut to `n_terms` columns, each followed by its negative.

    Returns
    -------
    ndarray of int64, shape (n, n_terms)
        +-1. If `n_terms` is a power of two, two rows are orthogonal or opposite; else nearly so.
    """
    rows = _build_hadamard(1 << (n_terms - 1).bit_length())[1:, :n_terms]
    rows = rows[rows.sum(axis=1) == 0]
    return np.stack([rows, -rows], axis=1).reshape(-1, n_terms)
