"""PXD beam background without PyTorch: graphs and a seed in, zero-suppressed digits out."""

from __future__ import annotations

from pxdbg_runtime.limits.address_space import reserve_less

reserve_less()

from pxdbg_runtime.digits import DIGIT_DTYPE, Digits
from pxdbg_runtime.errors import PxdbgError
from pxdbg_runtime.generator import Generator
from pxdbg_runtime.model.card import ModelCard
from pxdbg_runtime.overlaying import OverlaidDigits, overlay
from pxdbg_runtime.sensors import N_SENSORS, N_U_CELLS, N_V_CELLS, SENSORS, Sensor, sensor_of
from pxdbg_runtime.version import __version__

__all__ = [
    "DIGIT_DTYPE",
    "N_SENSORS",
    "N_U_CELLS",
    "N_V_CELLS",
    "SENSORS",
    "Digits",
    "Generator",
    "ModelCard",
    "OverlaidDigits",
    "PxdbgError",
    "Sensor",
    "__version__",
    "overlay",
    "sensor_of",
]


def __dir__() -> list[str]:
    return __all__
