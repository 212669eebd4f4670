"""The distances between histograms, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from pxdbg_runtime.validation.scores import (
    jensen_shannon,
    kolmogorov_smirnov,
    pulls,
    score_histograms,
    separation_power,
    wasserstein,
)

histograms = st.integers(1, 30).flatmap(
    lambda n_bins: st.tuples(*[st.lists(st.integers(0, 1000), min_size=n_bins, max_size=n_bins)] * 2)
)


@given(both=histograms, bin_width=st.sampled_from([1.0, 0.01, 4.0]))
def test_as_scipy_has_them(both: tuple[list[int], list[int]], bin_width: float) -> None:
    ours, theirs = both
    assume(any(ours) and any(theirs))
    places = bin_width * np.arange(len(ours))
    expected = scipy.stats.wasserstein_distance(places, places, ours, theirs)
    assert wasserstein(ours, theirs, bin_width) == pytest.approx(expected, abs=1e-9)
    expected = scipy.spatial.distance.jensenshannon(ours, theirs, base=2)
    assert jensen_shannon(ours, theirs) == pytest.approx(expected, abs=1e-6)


@given(both=histograms)
def test_their_limits_and_symmetry(both: tuple[list[int], list[int]]) -> None:
    ours, theirs = both
    assume(any(ours) and any(theirs))
    for score in (kolmogorov_smirnov, jensen_shannon, separation_power):
        assert 0 <= score(ours, theirs) <= 1 + 1e-12
        assert score(ours, theirs) == pytest.approx(score(theirs, ours), abs=1e-9)
        assert score(ours, [3 * count for count in ours]) == pytest.approx(0, abs=1e-6)


def test_ks_is_that_of_the_samples() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 40, 500), rng.integers(5, 45, 700)
    counts = [np.bincount(each, minlength=50) for each in (one, other)]
    assert kolmogorov_smirnov(*counts) == pytest.approx(scipy.stats.ks_2samp(one, other).statistic)


def test_by_hand() -> None:
    scores = score_histograms([3, 1, 0], [1, 1, 2], 2.0)
    assert scores is not None
    # p = 3/4, 1/4, 0 and q = 1/4, 1/4, 1/2; P - Q = 1/2, 1/2, 0.
    assert scores.w1 == pytest.approx(2.0)
    assert scores.ks == pytest.approx(0.5)
    assert scores.separation == pytest.approx(0.5 * (0.25 + 0.5))
    assert pulls([3, 1, 0], [1, 1, 2]) == pytest.approx([2 / 2, 0.0, -0.5 / np.sqrt(2 / 16)])
    assert scores.pull_rms == pytest.approx(np.sqrt((1 + 0 + 2) / 3))


def test_bins_empty_in_both_count_for_nothing() -> None:
    assert score_histograms([3, 0, 1], [1, 0, 2], 1.0) is not None
    assert np.isnan(pulls([3, 0, 1], [1, 0, 2])).tolist() == [False, True, False]


def test_pulls_of_noise_have_a_spread_of_one() -> None:
    rng = np.random.default_rng(2)
    scores = score_histograms(rng.poisson(200, 1000), rng.poisson(900, 1000), 1.0)
    assert scores is not None
    assert scores.pull_rms == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(("ours", "theirs"), [([0, 0], [1, 2]), ([1, 2], [0, 0])])
def test_an_empty_histogram_has_no_score(ours: list[int], theirs: list[int]) -> None:
    assert score_histograms(ours, theirs, 1.0) is None
