"""Derive the seed and the event number of a random stream from basf2's seed and the numbers of an event."""

from __future__ import annotations

import hashlib
from typing import Final

from pxdbg_runtime.errors import ArgumentValueError

__all__ = ["derive_seed", "pack_event_number"]

_EVENT_BITS: Final = 32
"""basf2 stores event numbers in 32 bits."""
_RUN_BITS: Final = 20
_EXPERIMENT_BITS: Final = 11


def derive_seed(text: str) -> int:
    """Derive a seed from basf2's seed string, as the original does.

    Parameters
    ----------
    text : str
        From ``basf2.get_random_seed()``.

    Returns
    -------
    int
        In [-2^63, 2^63 - 1]: the first eight bytes of the text's SHA-512, big-endian, signed.

    Examples
    --------
    >>> derive_seed("something important")
    844476566302984293
    """
    return int.from_bytes(hashlib.sha512(text.encode()).digest()[:8], "big", signed=True)


def pack_event_number(experiment: int, run: int, event: int) -> int:
    """Pack the numbers of experiment, run and event into one.

    Parameters
    ----------
    experiment : int
        0 to 2^11 - 1.
    run : int
        0 to 2^20 - 1.
    event : int
        0 to 2^32 - 1.

    Returns
    -------
    int
        experiment * 2^52 + run * 2^32 + event. For experiment 0 and run 0 it is the event's own number.

    Raises
    ------
    ArgumentValueError
        If a number is out of range.

    Examples
    --------
    >>> pack_event_number(0, 0, 5), pack_event_number(1003, 0, 5) == 1003 * 2**52 + 5
    (5, True)
    """
    number = 0
    for name, value, bits in (
        ("experiment", experiment, _EXPERIMENT_BITS),
        ("run", run, _RUN_BITS),
        ("event", event, _EVENT_BITS),
    ):
        if not 0 <= value < 2**bits:
            message = f"The {name} number must lie in [0, 2^{bits} - 1] for random_stream='philox', but is {value}."
            raise ArgumentValueError(name, message)
        number = number << bits | int(value)
    return number
