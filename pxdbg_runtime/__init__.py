"""PXD beam background without PyTorch: graphs and a seed in, zero-suppressed digits out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pxdbg_runtime.limits.address_space import reserve_less

reserve_less()

from pxdbg_runtime.digits import DIGIT_DTYPE, Digits
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.model.card import ModelCard
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Sensor, sensor_of
from pxdbg_runtime.version import __version__

if TYPE_CHECKING:
    from pxdbg_runtime.formats import open_digits as open  # noqa: A004  # as gzip.open

__all__ = [
    "DIGIT_DTYPE",
    "N_SENSORS",
    "N_U_CELLS",
    "N_V_CELLS",
    "SENSORS",
    "Digits",
    "Generator",
    "ModelCard",
    "PxdbgError",
    "Sensor",
    "__version__",
    "open",
    "sensor_of",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # else a type checker would take every name for an attribute

    def __getattr__(name: str) -> object:
        """Import `open` when it is first used: the package is imported without the formats of files."""
        if name == "open":
            from pxdbg_runtime.formats import open_digits

            return open_digits
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
