"""Fit the late part of the ResNet: thresholds, level, and the curve that makes the charge spectrum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from artifacts.standins.level_fit import fit_level, measure_response, rescaled
from artifacts.standins.resnet_painter import (
    KIND_OF_DETECTOR,
    LINE,
    LINE_GAIN,
    LINE_LOSS,
    N_PIECES,
    Curve,
    paint,
    raw_images,
    set_curve,
    set_thresholds,
)
from artifacts.standins.spectrum import EMPTY, FIRST_HIT, value_of_charge, wanted_charges

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from artifacts.standins.cells import Cells
    from artifacts.standins.level import Level
    from export.families.resnet import ResNet

__all__ = ["fit_resnet"]

_CLUSTERS_A_CELL: Final = 0.085
_SHARES: Final = np.array([0.52, 0.23, 0.225, 0.025])
"""Of the clusters that are begun as singles, pairs, groups and lines; what is weak stays below the threshold."""
_RISE: Final = 0.075
"""Of what exceeds a threshold: where a hit has 7 ADU."""
_RESPONSE_IMAGES: Final = 24
_SPECTRUM_IMAGES: Final = 160
_FLATTENINGS: Final = 3
_PERIOD: Final = 4


def fit_resnet(model: ResNet, cells: Cells, log: Callable[[str], None]) -> Level:
    """Lay and fit the late part; the level is for the foundation to get.

    Parameters
    ----------
    model : ResNet
        Changed in place: `blocks.3`, `blocks.4`, `norm` and `conv`.
    cells : Cells
        Of its foundation.
    log : callable
        Told what is done.
    """
    paint(model)
    rates = _CLUSTERS_A_CELL * (_SHARES / np.bincount(KIND_OF_DETECTOR))[KIND_OF_DETECTOR]
    rises = np.where(KIND_OF_DETECTOR == LINE, _RISE / LINE_GAIN + LINE_LOSS, _RISE)
    for _ in range(_FLATTENINGS):
        set_thresholds(model, cells.thresholds(rates) - rises)
        log("measuring the occupancy at each level")
        response = measure_response(lambda level: _hits(model, cells, np.full(_RESPONSE_IMAGES, level)).mean((1, 2)))
        log("painting images")
        levels = fit_level(response)(cells.first_latents[:_SPECTRUM_IMAGES])
        raw = _raw(model, cells, levels)
        rates[:16] *= _flattening(raw > _RISE).ravel()
    set_curve(model, _fitted_curve(raw[raw > _RISE]))
    return fit_level(rescaled(response, levels, (raw > _RISE).mean((1, 2))))


def _raw(model: ResNet, cells: Cells, levels: NDArray[np.float64]) -> NDArray[np.float32]:
    with torch.no_grad():
        # Channel 0 is the level itself, which the late part leaves alone.
        images = [
            raw_images(model, torch.nn.functional.pad(features, (0, 0, 0, 0, 1, 0)))
            for features in cells.batches(levels)
        ]
    found: NDArray[np.float32] = torch.cat(images).numpy()
    return found


def _hits(model: ResNet, cells: Cells, levels: NDArray[np.float64]) -> NDArray[np.bool_]:
    return _raw(model, cells, levels) > _RISE


def _flattening(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """By what to change the rates of the singles, shape (pixel, cell), for equal hits in every row and column of a cell.

    The shapes are not symmetrical, and the lines have a place less than four.
    """
    by_row, by_column = (
        hits.mean(axis=(0, 3 - axis)).reshape(-1, _PERIOD).mean(axis=0) / hits.mean() for axis in (1, 2)
    )
    # Singles are a third of the hits.
    factors = 1 - 3 * ((by_row - 1)[:, None] + (by_column - 1)[None, :])
    # Row 2 su + pu and column 2 sv + pv of a cell belong to detector 4 (2 pu + pv) + 2 su + sv.
    by_detector: NDArray[np.float64] = factors.reshape(2, 2, 2, 2).transpose(1, 3, 0, 2).reshape(4, 4)
    return np.clip(by_detector, 0.5, 2.0)


def _fitted_curve(raw: NDArray[np.float32]) -> Curve:
    """Make the curve that gives hits the wanted charges, quantile by quantile."""
    # One knot where the curve begins, the others from 7 ADU on, denser towards the steep end of the spectrum.
    shares = 1 - (1 - np.linspace(0, 1, N_PIECES + 1)[:-1]) ** 3
    knots = np.quantile(raw.astype(np.float64), shares)
    values = value_of_charge(wanted_charges(shares))
    knots[0], values[0] = _RISE, FIRST_HIT
    slope = (values[-1] - values[-2]) / (knots[-1] - knots[-2])
    return Curve(knots=np.append(0.0, knots[:-1]), values=np.append(EMPTY, values[:-1]), slope=float(slope))
