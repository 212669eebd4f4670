"""The charge spectrum as the late part of a stand-in needs it: in values before the tanh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from artifacts.standins.marginals import READOUT_THRESHOLD_ADU, SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE
from export.charge import find_charge_thresholds
from pxdbg_runtime.model.card import N_THRESHOLDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "EMPTY",
    "FIRST_HIT",
    "charge_of_value",
    "charge_values",
    "value_of_charge",
    "wanted_charges",
    "wanted_cumulative",
]

EMPTY: Final = -1.1
"""What an empty pixel has before the tanh; 1 ADU begins at -0.973."""
_LARGEST: Final = 254.9
"""ADU; a charge of 256 would take an infinite value."""


def value_of_charge(charges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute what a charge, not rounded down as yet, has before the tanh."""
    fraction = np.log(np.minimum(charges, _LARGEST) + 1) / np.log(256)
    return np.asarray(np.arctanh(2 * fraction - 1))


def charge_of_value(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the charges of values before the tanh, not rounded down as yet; below 7 ADU there is none."""
    charges = 256.0 ** ((np.tanh(values) + 1) / 2) - 1
    return np.where(charges < READOUT_THRESHOLD_ADU, 0.0, charges)


FIRST_HIT: Final = float(value_of_charge(np.array(float(READOUT_THRESHOLD_ADU))))
"""What 7 ADU have before the tanh."""


def wanted_charges(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the charges below which shares of the hits lie, not rounded down."""
    return np.interp(shares, SPECTRUM_CUMULATIVE, SPECTRUM_CHARGES)


def wanted_cumulative() -> NDArray[np.float64]:
    """Compute the share of the hits below 7, 8, … 256 ADU, shape (250,)."""
    return np.interp(np.arange(READOUT_THRESHOLD_ADU, N_THRESHOLDS + 2), SPECTRUM_CHARGES, SPECTRUM_CUMULATIVE)


def charge_values() -> NDArray[np.float64]:
    """Compute what each charge from 7 ADU on begins with before the tanh, shape (249,)."""
    return np.arctanh(find_charge_thresholds()[READOUT_THRESHOLD_ADU - 1 :].astype(np.float64))
