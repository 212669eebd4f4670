"""Seams in profiles: found where they are, and not in noise or trends."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from pxdbg_runtime import N_U_CELLS, N_V_CELLS
from pxdbg_runtime.validation.seams import PERIODS, Axis, Seam, find_seam, find_seams, fold, measure_borders

CELLS: dict[Axis, int] = {"u": N_U_CELLS, "v": N_V_CELLS}
each_axis = pytest.mark.parametrize("axis", get_args(Axis))
each_period = pytest.mark.parametrize("period", PERIODS)


def create_noise(axis: Axis, *, mean: float = 40_000.0, seed: int = 1) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(seed).poisson(mean, CELLS[axis])


def find_phases(axis: Axis, period: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return (np.arange(CELLS[axis]) + {"u": 3, "v": 0}[axis]) % period


def find(profile: np.ndarray[tuple[int], np.dtype[np.int64]], axis: Axis, period: int) -> Seam:
    seam = find_seam(profile, axis, period)
    assert seam is not None
    return seam


@each_axis
@each_period
@pytest.mark.parametrize("phase", [0, 1, 7])
@pytest.mark.parametrize("factor", [1.12, 0.88])
def test_a_seam_is_found_at_its_phase(axis: Axis, period: int, phase: int, factor: float) -> None:
    profile = create_noise(axis).astype(float)
    profile[find_phases(axis, period) == phase] *= factor
    seam = find(profile.astype(np.int64), axis, period)
    assert seam.phase == phase
    # One column of a period raises the trend a little.
    assert seam.deviation_percent == pytest.approx(100 * (factor - 1), abs=2.5)
    assert seam.deviation_error_percent < 0.5
    assert seam.verdict == "fail"


@each_axis
@each_period
def test_cells_at_a_boundary_are_compared_with_the_others(axis: Axis, period: int) -> None:
    profile = create_noise(axis).astype(float)
    profile[np.isin(find_phases(axis, period), (0, period - 1))] *= 1.10
    seam = find(profile.astype(np.int64), axis, period)
    assert seam.boundary_excess_percent == pytest.approx(10, abs=0.8)
    assert 0 < seam.boundary_error_percent < 0.6


@each_axis
@each_period
@pytest.mark.parametrize("seed", range(5))
def test_noise_and_a_smooth_trend_have_no_seams(axis: Axis, period: int, seed: int) -> None:
    position = np.linspace(0, 1, CELLS[axis])
    profile = np.random.default_rng(seed).poisson(40_000 * (1 + 0.5 * position + 0.3 * np.sin(3 * position)))
    seam = find(profile, axis, period)
    assert seam.verdict == "pass"
    assert abs(seam.deviation_percent) < 1
    assert abs(seam.boundary_excess_percent) < 5 * seam.boundary_error_percent


def test_noise_of_few_hits_decides_nothing() -> None:
    verdicts = [find(create_noise("u", mean=20, seed=seed), "u", 32).verdict for seed in range(50)]
    assert "too few hits" in verdicts
    assert verdicts.count("fail") <= 1


@pytest.mark.parametrize(("mean", "verdict"), [(100, "too few hits"), (40_000, "fail")])
def test_a_small_sample_does_not_tell_a_seam_beyond_the_bound_from_one_below(mean: float, verdict: str) -> None:
    profile = create_noise("v", mean=mean).astype(float)
    profile[find_phases("v", 32) == 7] *= 1.08
    assert find(profile.astype(np.int64), "v", 32).verdict == verdict


def test_a_seam_of_the_longer_period_passes_at_no_period_it_divides() -> None:
    profile = create_noise("v").astype(float)
    profile[::32] *= 1.3
    seams = find_seams(create_noise("u"), profile.astype(np.int64))
    by_place = {(seam.axis, seam.period): seam for seam in seams}
    assert len(seams) == 6
    assert by_place["v", 32].verdict == "fail"
    assert abs(by_place["v", 32].deviation_percent) > 2 * abs(by_place["v", 8].deviation_percent)
    assert all(by_place["u", period].verdict == "pass" for period in PERIODS)


@each_axis
def test_the_outer_cells_are_left_out(axis: Axis) -> None:
    profile = create_noise(axis)
    changed = profile.copy()
    changed[:8] = 0
    changed[-8:] *= 5
    assert find_seam(changed, axis, 8) == find_seam(profile, axis, 8)
    folded = fold(profile, axis, 8)
    assert folded is not None
    assert folded.ratios.shape == (find(profile, axis, 8).boundaries, 8)


def test_a_profile_without_hits_has_no_seams_and_borders() -> None:
    nothing = np.zeros(N_U_CELLS, dtype=np.int64)
    assert find_seams(nothing, np.zeros(N_V_CELLS, dtype=np.int64)) == ()
    assert measure_borders(nothing, "u") == ()
    stripes = nothing.copy()
    stripes[(np.arange(N_U_CELLS) + 3) % 8 == 0] = 100
    assert find_seam(stripes, "u", 8) is None


def test_borders_against_the_interior() -> None:
    profile = np.full(N_U_CELLS, 100, dtype=np.int64)
    profile[0], profile[-2:] = 50, 300
    ratios = {ratio.width: (ratio.low, ratio.high) for ratio in measure_borders(profile, "u")}
    assert ratios == {1: (0.5, 3.0), 2: (0.75, 3.0), 4: (0.875, 2.0)}
