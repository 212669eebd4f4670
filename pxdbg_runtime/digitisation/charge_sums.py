"""The kernel that adds the charges of a background to those of a signal, in one pass over sorted digits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.digitisation.jit import kernel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["add_charges"]


@kernel
def add_charges(
    signal_event: NDArray[np.int64],
    signal_channel: NDArray[np.int64],
    signal_charge: NDArray[np.int64],
    background_event: NDArray[np.int64],
    background_channel: NDArray[np.int64],
    background_charge: NDArray[np.int64],
    row: NDArray[np.int64],
    charge: NDArray[np.int64],
) -> int:
    """Add each background digit to the first signal digit of its event and channel; without one, it is a new digit.

    Parameters
    ----------
    signal_event, signal_channel, signal_charge : ndarray of int64, shape (n,)
        Ordered by event, then channel; a channel may come several times.
    background_event, background_channel, background_charge : ndarray of int64, shape (m,)
        Likewise.
    row : ndarray of int64, shape (n + m,)
        Output, from index 0 on, ordered by event, then channel: the row of each digit among the signal's, or n plus
        its row among the background's.
    charge : ndarray of int64, shape (n + m,)
        Output likewise: the sums.

    Returns
    -------
    int
        Number of digits.
    """
    n_signal, n_background = len(signal_event), len(background_event)
    signal = background = n_digits = 0
    while signal < n_signal or background < n_background:
        takes_signal = background == n_background or (
            signal < n_signal
            and (
                signal_event[signal] < background_event[background]
                or (
                    signal_event[signal] == background_event[background]
                    and signal_channel[signal] <= background_channel[background]
                )
            )
        )
        if takes_signal:
            total = signal_charge[signal]
            # The first signal digit of a channel takes all of the background; later ones find none left.
            while (
                background < n_background
                and background_event[background] == signal_event[signal]
                and background_channel[background] == signal_channel[signal]
            ):
                total += background_charge[background]
                background += 1
            row[n_digits], charge[n_digits] = signal, total
            signal += 1
        else:
            row[n_digits], charge[n_digits] = n_signal + background, background_charge[background]
            background += 1
        n_digits += 1
    return n_digits
