"""Intervals of validity, and the choice among several payloads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.conditions.validity import OPEN, Interval, PayloadEntry, find_valid_entry
from export.errors import ServerError


def interval(*ends: int) -> Interval:
    first_experiment, first_run, last_experiment, last_run = ends
    return Interval(
        first_experiment=first_experiment, first_run=first_run, last_experiment=last_experiment, last_run=last_run
    )


def entry(revision: int, *ends: int, md5: str = 32 * "0") -> PayloadEntry:
    return PayloadEntry(name="P", revision=revision, md5=md5, payload_url="p", base_url=None, interval=interval(*ends))


@pytest.mark.parametrize(
    ("ends", "inside", "outside"),
    [
        ((0, 0, OPEN, OPEN), [(0, 0), (0, 5), (1003, 0), (10**6, 10**6)], []),
        ((7, 100, 7, OPEN), [(7, 100), (7, 10**6)], [(6, 200), (7, 99), (8, 0), (8, 200)]),
        ((7, 100, 9, 5), [(7, 100), (7, 101), (8, 0), (8, 10**6), (9, 0), (9, 5)], [(7, 99), (9, 6), (10, 0)]),
        ((7, 100, OPEN, OPEN), [(7, 100), (8, 0)], [(0, 0), (7, 99), (6, 10**6)]),
        ((7, 100, OPEN, 5), [(7, 100), (8, 0), (8, 6)], [(7, 99)]),
        ((3, 4, 3, 4), [(3, 4)], [(3, 3), (3, 5), (2, 4), (4, 4)]),
        ((3, 4, 2, 9), [], [(3, 4), (2, 9), (3, 5)]),
    ],
)
def test_both_ends_belong_to_an_interval(
    ends: tuple[int, ...], inside: list[tuple[int, int]], outside: list[tuple[int, int]]
) -> None:
    covers = interval(*ends).covers
    assert all(covers(*run) for run in inside)
    assert not any(covers(*run) for run in outside)


@given(st.tuples(*[st.integers(0, 4)] * 2, *[st.integers(-1, 4)] * 2), st.integers(0, 5), st.integers(0, 5))
def test_an_interval_covers_what_an_open_end_far_away_covers(ends: tuple[int, ...], experiment: int, run: int) -> None:
    last = (ends[2], 10**9 if ends[3] == OPEN else ends[3]) if ends[2] != OPEN else (10**9, 10**9)
    expected = (ends[0], ends[1]) <= (experiment, run) <= last
    assert interval(*ends).covers(experiment, run) == expected


def test_the_highest_revision_that_is_valid_is_chosen() -> None:
    everywhere = (0, 0, OPEN, OPEN)
    entries = [entry(2, *everywhere), entry(10, *everywhere), entry(9, *everywhere), entry(11, 8, 0, OPEN, OPEN)]
    assert find_valid_entry(entries, 7, 0) == entries[1]
    assert find_valid_entry(entries, 8, 0) == entries[3]
    assert find_valid_entry(entries[3:], 7, 0) is None
    assert find_valid_entry([], 7, 0) is None


def test_the_same_file_may_be_listed_twice_but_not_two_files_as_one_revision() -> None:
    twice = [entry(2, 0, 0, OPEN, OPEN), entry(2, 0, 0, 9, OPEN)]
    assert find_valid_entry(twice, 7, 0) in twice
    other = entry(2, 0, 0, OPEN, OPEN, md5=32 * "1")
    expected = r"lists two files as revision 2 of P for experiment 7, run 0, with MD5 0{32} and 1{32}: expected one\.$"
    with pytest.raises(ServerError, match=expected):
        find_valid_entry([*twice, other], 7, 0)
