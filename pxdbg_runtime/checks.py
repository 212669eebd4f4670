"""Checks of arguments that several modules share."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError

__all__ = ["check_integer"]


def check_integer(argument: str, value: object, low: int, high: int, *, unit: str = "", limits: str = "") -> int:
    """Return an integer argument as a Python integer.

    Parameters
    ----------
    argument : str
        Its name.
    value : object
        A Python integer, or one of NumPy's; not a boolean.
    low, high : int
        Smallest and largest value that is accepted.
    unit : str
        What is counted, such as ``threads``.
    limits : str
        How the message writes the limits; from `low` to `high` if empty.

    Returns
    -------
    int

    Raises
    ------
    ArgumentTypeError
        If it is not an integer.
    ArgumentValueError
        If it lies outside the limits.

    Examples
    --------
    >>> check_integer("nintra", 2, 1, 4096, unit="threads")
    2
    >>> check_integer("nintra", 0, 1, 4096, unit="threads")
    Traceback (most recent call last):
    pxdbg_runtime.errors.ArgumentValueError: nintra must lie between 1 and 4096 threads, but is 0.
    """
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        message = f"{argument} must be an integer, but is {value!r} ({type(value).__name__})."
        raise ArgumentTypeError(argument, message)
    try:
        integer = operator.index(value)
    except TypeError:  # arrays and tensors have the method, and refuse where they hold anything but one integer
        message = f"{argument} must be an integer, but is {value!r} ({type(value).__name__})."
        raise ArgumentTypeError(argument, message) from None
    if not low <= integer <= high:
        text = f"lie in {limits}" if limits else f"lie between {low} and {high}{unit and ' ' + unit}"
        message = f"{argument} must {text}, but is {integer}."
        raise ArgumentValueError(argument, message)
    return integer
