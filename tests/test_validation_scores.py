"""The distances between histograms, against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from pxdbg_runtime.validation.scores import HistogramScores, compute_pulls, score_histograms

histograms = st.integers(1, 30).flatmap(
    lambda n_bins: st.tuples(*[st.lists(st.integers(0, 1000), min_size=n_bins, max_size=n_bins)] * 2)
)


def score(ours: object, theirs: object, bin_width: float = 1.0) -> HistogramScores:
    scores = score_histograms(np.asarray(ours), np.asarray(theirs), bin_width)
    assert scores is not None
    return scores


@given(both=histograms, bin_width=st.sampled_from([1.0, 0.01, 4.0]))
def test_they_follow_their_formulas(both: tuple[list[int], list[int]], bin_width: float) -> None:
    assume(all(map(any, both)))
    p, q = (np.asarray(each) / sum(each) for each in both)
    scores = score(*both, bin_width)
    assert scores.w1 == pytest.approx(np.abs(np.cumsum(p - q)).sum() * bin_width, abs=1e-9)
    positions = bin_width * np.arange(len(p))
    assert scores.w1 == pytest.approx(
        scipy.stats.wasserstein_distance(positions, positions, p, q), rel=1e-12, abs=1e-15
    )
    pairs = zip([*p, *q], [*(p + q) / 2] * 2, strict=True)
    divergence = sum(share * np.log2(share / middle) for share, middle in pairs if share) / 2
    assert scores.jensen_shannon == pytest.approx(np.sqrt(max(divergence, 0)), abs=1e-6)
    with np.errstate(invalid="ignore"):  # scipy takes the root of a divergence that rounds to less than 0
        expected = np.nan_to_num(scipy.spatial.distance.jensenshannon(p, q, base=2))
    assert scores.jensen_shannon == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(both=histograms)
def test_their_limits_and_symmetry(both: tuple[list[int], list[int]]) -> None:
    ours, theirs = both
    assume(any(ours) and any(theirs))
    for name in ("ks", "jensen_shannon", "separation"):
        distance = getattr(score(ours, theirs), name)
        assert 0 <= distance <= 1 + 1e-12
        assert distance == pytest.approx(getattr(score(theirs, ours), name), abs=1e-9)
        assert getattr(score(ours, [3 * count for count in ours]), name) == pytest.approx(0, abs=1e-6)


def test_ks_is_that_of_the_samples() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 40, 500), rng.integers(5, 45, 700)
    expected = scipy.stats.ks_2samp(one, other).statistic
    assert score(np.bincount(one, minlength=50), np.bincount(other, minlength=50)).ks == pytest.approx(expected)


def test_by_hand() -> None:
    scores = score([3, 1, 0], [1, 1, 2], 2.0)
    # p = 3/4, 1/4, 0 and q = 1/4, 1/4, 1/2; P - Q = 1/2, 1/2, 0.
    assert scores.w1 == pytest.approx(2.0)
    assert scores.ks == pytest.approx(0.5)
    assert scores.separation == pytest.approx(0.5 * (0.25 + 0.5))
    assert compute_pulls([3, 1, 0], [1, 1, 2]) == pytest.approx([2 / 2, 0.0, -0.5 / np.sqrt(2 / 16)])
    assert scores.pull_rms == pytest.approx(np.sqrt((1 + 0 + 2) / 3))


def test_nearly_equal_histograms_have_no_distance() -> None:
    """Their divergence is smaller than rounding errors: scipy takes the root of a negative number for some of them."""
    for n_hits in 10 ** np.arange(8, 15):
        assert score([3 * n_hits, n_hits], [3 * n_hits, n_hits + 2]).jensen_shannon == pytest.approx(0, abs=1e-7)


def test_bins_empty_in_both_count_for_nothing() -> None:
    assert np.isfinite(score([3, 0, 1], [1, 0, 2]).pull_rms)
    assert np.isnan(compute_pulls([3, 0, 1], [1, 0, 2])).tolist() == [False, True, False]


def test_pulls_of_noise_have_a_spread_of_one() -> None:
    rng = np.random.default_rng(2)
    scores = score(rng.poisson(200, 1000), rng.poisson(900, 1000))
    assert scores.pull_rms == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(("ours", "theirs"), [([0, 0], [1, 2]), ([1, 2], [0, 0])])
def test_an_empty_histogram_has_no_score(ours: list[int], theirs: list[int]) -> None:
    assert score_histograms(ours, theirs, 1.0) is None
