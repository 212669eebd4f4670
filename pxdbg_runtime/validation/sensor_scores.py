"""A quantity of the forty sensors, such as the occupancy, against a reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.sensors import SENSORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SensorScores", "score_sensors"]


@dataclass(frozen=True, kw_only=True)
class SensorScores:
    """Relative deviations of a quantity of each sensor from a reference's, in percent.

    Attributes
    ----------
    deviations_percent : tuple of float, length 40
        By sensor index, with their signs; NaN for a sensor that is not compared.
    mean_percent : float
        Mean of their sizes over the compared sensors.
    largest_percent : float
        The largest in size, with its sign.
    largest_sensor : str
        Its sensor, such as ``1.3.2``.
    """

    deviations_percent: tuple[float, ...]
    mean_percent: float
    largest_percent: float
    largest_sensor: str


def score_sensors(values: NDArray[np.float64], reference: NDArray[np.float64]) -> SensorScores | None:
    """Compare the sensors of two samples.

    Parameters
    ----------
    values, reference : ndarray of float64, shape (40,)
        By sensor index. A sensor is compared if it is known on both sides (not NaN) and not 0 in the reference.

    Returns
    -------
    SensorScores or None
        None if no sensor can be compared.

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.full(40, 0.01)
    >>> values = reference.copy()
    >>> values[0] = 0.008
    >>> scores = score_sensors(values, reference)
    >>> f"{scores.mean_percent:.1f} {scores.largest_percent:.1f} {scores.largest_sensor}"
    '0.5 -20.0 1.1.1'
    """
    deviations = np.full(len(SENSORS), np.nan)
    np.divide(100 * (values - reference), reference, out=deviations, where=reference != 0)
    sizes = np.abs(deviations)
    if np.isnan(sizes).all():
        return None
    largest = int(np.nanargmax(sizes))
    return SensorScores(
        deviations_percent=tuple(deviations.tolist()),
        mean_percent=float(np.nanmean(sizes)),
        largest_percent=float(deviations[largest]),
        largest_sensor=str(SENSORS[largest]),
    )
