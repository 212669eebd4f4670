"""Checks of arguments, and the ranges of seeds and event numbers."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Final, SupportsIndex

from pxdbg_runtime.errors import ArgumentTypeError, ArgumentValueError

__all__ = ["MAX_EVENT", "MAX_SEED", "MIN_SEED", "StrPath", "check_event", "check_integer", "check_path", "check_seed"]

StrPath = str | os.PathLike[str]
"""A path argument of a function for users; inside, paths are `Path`."""

MIN_SEED: Final = -(2**63)
MAX_SEED: Final = 2**63 - 1
MAX_EVENT: Final = 2**63 - 1


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
        The limits as the message writes them; `low` and `high` if empty.

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
    # NumPy before 2 takes its own boolean for an integer.
    is_boolean = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"
    try:
        integer = operator.index(value) if isinstance(value, SupportsIndex) and not is_boolean else None
    except TypeError:  # arrays and tensors that hold anything but one integer
        integer = None
    if integer is None:
        raise ArgumentTypeError(argument, f"{argument} must be an integer, but is {value!r} ({type(value).__name__}).")
    if not low <= integer <= high:
        text = f"lie in {limits}" if limits else f"lie between {low} and {high}{unit and ' ' + unit}"
        raise ArgumentValueError(argument, f"{argument} must {text}, but is {integer}.")
    return integer


def check_seed(seed: object) -> int:
    """Return a seed as a Python integer; raises as `check_integer` unless it is in [-2^63, 2^63 - 1]."""
    return check_integer("seed", seed, MIN_SEED, MAX_SEED, limits="[-2^63, 2^63 - 1]")


def check_event(event: object) -> int:
    """Return an event number as a Python integer; raises as `check_integer` unless it is in [0, 2^63 - 1]."""
    return check_integer("event", event, 0, MAX_EVENT, limits="[0, 2^63 - 1]")


def check_path(argument: str, value: StrPath) -> Path:
    """Return a path argument as a `Path`.

    Raises
    ------
    ArgumentTypeError
        If it is neither a string nor an object that stands for one, `os.PathLike`.

    Examples
    --------
    >>> check_path("path", "bg.parquet").suffix
    '.parquet'
    """
    try:
        return Path(value)
    except TypeError:
        message = f"{argument} must be a path, but is {value!r} ({type(value).__name__})."
        raise ArgumentTypeError(argument, message) from None
