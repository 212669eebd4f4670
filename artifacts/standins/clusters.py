"""Draw the charge that particles deposit in the pixels of a sensor: a numba kernel.

Photons deposit their charge at a point, charged particles along a straight path. The charge diffuses, and the pixel
that it reaches collects it. This is a crude model of a silicon sensor, with the right pitches, thickness and noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.digitisation.jit import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["draw_sensor"]

_THICKNESS_UM: Final = 75.0
_U_PITCH_UM: Final = 50.0
_DIFFUSION_UM: Final = 5.5
_NOISE_ADU: Final = 150.0 / 217.0
"""150 electrons, at 217 electrons per ADU."""
_STEP_UM: Final = 8.0
_LANDAU_MPV_ADU_PER_UM: Final = 78.0 / 217.0
"""Most probable charge of a charged particle, 78 electrons per micrometre."""
_SHARES_PER_STEP: Final = 3
_SHARES_PER_PHOTON: Final = 8
# Cumulative shares of the kinds of clusters: soft photons, hard photons, steep tracks; the rest are grazing tracks.
_SOFT_PHOTONS: Final = 0.42
_HARD_PHOTONS: Final = 0.60
_STEEP_TRACKS: Final = 0.985


@kernel
def _draw_landau() -> float:
    """Draw from Moyal's approximation of a Landau distribution (location 0, scale 1)."""
    normal = np.random.normal()
    return float(-np.log(normal * normal + 1e-12))


@kernel
def _deposit(
    image: NDArray[np.float32], u_um: float, v_um: float, charge: float, v_pitch_um: float, threshold: float
) -> int:
    """Add charge to the pixel that it diffuses to; return the change in the number of pixels above the threshold."""
    u = int(np.floor((u_um + _DIFFUSION_UM * np.random.normal()) / _U_PITCH_UM))
    v = int(np.floor((v_um + _DIFFUSION_UM * np.random.normal()) / v_pitch_um))
    if u < 0 or v < 0 or u >= image.shape[0] or v >= image.shape[1]:
        return 0
    before = image[u, v]
    # A pixel gets its noise with its first charge, once.
    after = np.float32((before if before != 0 else _NOISE_ADU * np.random.normal()) + charge)
    image[u, v] = after
    return int(after >= threshold) - int(before >= threshold)


@kernel
def _add_photon(image: NDArray[np.float32], charge: float, v_pitch_um: float, threshold: float) -> int:
    u_um = np.random.random() * image.shape[0] * _U_PITCH_UM
    v_um = np.random.random() * image.shape[1] * v_pitch_um
    change = 0
    for _ in range(_SHARES_PER_PHOTON):
        change += _deposit(image, u_um, v_um, charge / _SHARES_PER_PHOTON, v_pitch_um, threshold)
    return change


@kernel
def _add_track(image: NDArray[np.float32], length_um: float, v_pitch_um: float, threshold: float) -> int:
    """Add charge along a path through the sensor whose projection on the sensor is `length_um` long."""
    angle = 2 * np.pi * np.random.random()
    u_um = np.random.random() * image.shape[0] * _U_PITCH_UM - 0.5 * length_um * np.cos(angle)
    v_um = np.random.random() * image.shape[1] * v_pitch_um - 0.5 * length_um * np.sin(angle)
    path_um = np.sqrt(length_um * length_um + _THICKNESS_UM * _THICKNESS_UM)
    n_steps = max(3, int(path_um / _STEP_UM))
    step_um = path_um / n_steps
    scale = 1.0 + 0.12 * _draw_landau()  # of the whole path; each step fluctuates as well
    change = 0
    for step in range(n_steps):
        along = (step + 0.5) / n_steps * length_um
        charge = _LANDAU_MPV_ADU_PER_UM * step_um * max(0.2, scale + 0.18 * _draw_landau())
        for _ in range(_SHARES_PER_STEP):
            change += _deposit(
                image,
                u_um + along * np.cos(angle),
                v_um + along * np.sin(angle),
                charge / _SHARES_PER_STEP,
                v_pitch_um,
                threshold,
            )
    return change


@kernel
def draw_sensor(image: NDArray[np.float32], n_hits: int, v_pitch_um: float, threshold: float, seed: int) -> None:
    """Add clusters to an empty sensor until enough of its pixels are above the threshold.

    Parameters
    ----------
    image : ndarray of float32, shape (rows, columns)
        Zeros; overwritten with raw charges, ADU.
    n_hits : int
        Number of pixels above the threshold at which to stop.
    v_pitch_um : float
        Pitch of the pixels along v.
    threshold : float
        Raw charge of a hit, ADU.
    seed : int
        0 to 2^32 - 1.
    """
    np.random.seed(seed)
    found = 0
    while found < n_hits:
        kind = np.random.random()
        if kind < _SOFT_PHOTONS:
            found += _add_photon(image, 6.0 + 10.0 * np.random.random(), v_pitch_um, threshold)
        elif kind < _HARD_PHOTONS:
            found += _add_photon(image, 10.0 - 22.0 * np.log(1.0 - np.random.random()), v_pitch_um, threshold)
        elif kind < _STEEP_TRACKS:
            length_um = 20.0 - 65.0 * np.log(1.0 - np.random.random())
            found += _add_track(image, length_um, v_pitch_um, threshold)
        else:
            length_um = 250.0 - 250.0 * np.log(1.0 - np.random.random())
            found += _add_track(image, min(length_um, 1500.0), v_pitch_um, threshold)
