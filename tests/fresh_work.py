"""What the tests of new processes run there: the module imports little, as each of the processes does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pxdbg_runtime import Digits, Generator, Sensor

__all__ = ["allocate", "fail", "generate_event", "nothing", "talk"]


def nothing() -> tuple[float, ...]:
    return ()


def allocate(megabytes: str) -> tuple[float, ...]:
    """Fill memory, and let go of it before the peak is asked for."""
    filled = np.ones(int(float(megabytes) * 1e6), dtype=np.uint8)
    return (float(filled[-1]), 2.5)


def talk() -> tuple[float, ...]:
    print("a package that says something on its standard output")  # noqa: T201
    return (1.0,)


def fail() -> tuple[float, ...]:
    message = "this is why"
    raise ValueError(message)


def generate_event(generator: Generator, event: int, sensors: Sequence[Sensor] | None = None) -> Digits:
    return generator.generate(event, sensors)
