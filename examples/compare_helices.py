"""Compare the tracks of jobs with different PXD background: helix parameters and lost tracks.

    python examples/compare_helices.py none.csv simulated.csv generated.csv

Each file is a table in CSV with the columns event, particle, d0, phi0, omega, z0 and tan_lambda, a row for each matched
track (examples/basf2_tracking_study.py). The first file is the reference: of each particle that has a track in both,
the difference of the helix parameters is taken. Printed are the share of the reference's particles that have a track,
and the median and the width of the differences, half of the range from the 16 % to the 84 % quantile.

If generated background is as good as simulated, the lines of both are equal within their errors. The reference may as
well be a table of the true parameters: then the widths are resolutions and the share is an efficiency.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np

PARAMETERS: Final = ("d0", "phi0", "omega", "z0", "tan_lambda")
N_RESAMPLED: Final = 200
Tracks = dict[tuple[int, int], np.ndarray]


def read_tracks(path: str) -> Tracks:
    """Read the helix parameters of each particle, by the numbers of its event and of itself."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    missing = {"event", "particle", *PARAMETERS} - set(table.dtype.names or ())
    if missing:
        message = f"{path} lacks the columns {', '.join(sorted(missing))}."
        raise ValueError(message)
    rows = np.atleast_1d(table)
    values = np.stack([rows[name] for name in ("event", "particle", *PARAMETERS)], axis=1)
    if not np.isfinite(values).all():
        message = f"{path} has a row with a field that is not a finite number."
        raise ValueError(message)
    tracks = {(int(row[0]), int(row[1])): row[2:] for row in values}
    if len(tracks) < len(values):
        message = f"{path} has several rows of one event and particle: keep one track of each particle."
        raise ValueError(message)
    return tracks


def subtract_tracks(tracks: Tracks, reference: Tracks) -> np.ndarray:
    """Subtract the parameters of the particles that have a track in both; shape (tracks, 5). Angles are in ±π."""
    common = sorted(tracks.keys() & reference.keys())
    differences = np.array([tracks[key] - reference[key] for key in common]).reshape(-1, len(PARAMETERS))
    differences[:, 1] = (differences[:, 1] + np.pi) % (2 * np.pi) - np.pi
    return differences


def measure_width(differences: np.ndarray) -> np.ndarray:
    """Measure half of the range from the 16 % to the 84 % quantile of each column."""
    low, high = np.quantile(differences, [0.16, 0.84], axis=0)
    return (high - low) / 2


def estimate_error(differences: np.ndarray) -> np.ndarray:
    """Estimate the standard error of the width of each column, by a bootstrap over tracks."""
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, len(differences), (N_RESAMPLED, len(differences)))
    return np.std([measure_width(differences[rows]) for rows in drawn], axis=0)


def main(reference_path: str, *paths: str) -> None:
    """Print a line for each file and parameter."""
    reference = read_tracks(reference_path)
    for path in paths:
        differences = subtract_tracks(read_tracks(path), reference)
        sys.stdout.write(f"{path}: {len(differences)} of {len(reference)} particles of {reference_path} have a track\n")
        if not len(differences):
            continue
        columns = np.median(differences, axis=0), measure_width(differences), estimate_error(differences)
        for name, median, width, error in zip(PARAMETERS, *columns, strict=True):
            sys.stdout.write(f"  {name:10s} median {median:+.3g}, width {width:.3g} ± {error:.2g}\n")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
