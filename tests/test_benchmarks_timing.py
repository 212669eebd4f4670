"""Benchmarks: the order of interleaved rounds, failures, and claims."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from benchmarks.report import Claim, combine_rounds
from benchmarks.timing import Case, Measurement, find_measurement, measure_interleaved, time_rate, time_run
from pxdbg_runtime.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.report import Bound
    from benchmarks.timing import Run


@dataclass
class FakeClock:
    """A clock that advances only during work; it records the work."""

    now: float = 100.0
    done: list[str] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        """Build work that takes so many seconds, call by call."""
        left = list(seconds)

        def work() -> None:
            self.done.append(name)
            self.now += left.pop(0)

        return work

    def case(self, name: str, *seconds: float) -> Case:
        return Case(rows=((name,),), prepare=lambda: time_run(self.work(name, *seconds), clock=self))


def build_refused_case(error: Exception) -> Case:
    def prepare() -> Run:
        raise error

    return Case(rows=(("refused", "first"), ("refused", "second")), prepare=prepare)


def breaking(good_runs: int) -> Case:
    """Build a case that runs a few times and then fails."""
    values = iter([(1.0,)] * good_runs)

    def run() -> tuple[float, ...]:
        for value in values:
            return value
        message = "out of luck\nand more"
        raise RuntimeError(message)

    return Case(rows=(("breaking",),), prepare=lambda: run)


def build_measurement(label: str, *samples: float) -> Measurement:
    return Measurement(labels=(label,), unit="s", samples=samples)


def test_every_case_warms_up_once_and_then_all_run_once_a_round() -> None:
    clock = FakeClock()
    cases = (clock.case("a", 9, 3, 1, 2), clock.case("b", 7, 0.5, 0.25, 8), clock.case("c", 0, 0, 0, 0))
    a, b, c = measure_interleaved(cases, 3, lambda _: None)
    assert clock.done == ["a", "b", "c"] * 4
    assert (a.samples, b.samples, c.samples) == ((3.0, 1.0, 2.0), (0.5, 0.25, 8.0), (0.0, 0.0, 0.0))
    assert (a.median, b.median) == (2.0, 0.5)
    assert (a.labels, a.unit, a.reason) == (("a",), "s", "")


def test_repeats_are_averaged_and_another_warm_up_takes_the_place_of_the_work() -> None:
    clock = FakeClock()
    assert time_run(clock.work("work", 9, 1, 2, 6), repeats=3, clock=clock)() == (3.0,)
    clock.done.clear()
    run = time_run(clock.work("work", 2.5), warm_up=clock.work("warm-up", 40), clock=clock)
    assert clock.done == ["warm-up"]
    assert run() == (2.5,)
    assert clock.done == ["warm-up", "work"]


def test_a_rate_is_events_over_seconds() -> None:
    clock = FakeClock()
    run = time_rate(clock.work("work", 4), 10, warm_up=clock.work("warm-up", 1), clock=clock)
    assert run() == (2.5,)
    assert clock.done == ["warm-up", "work"]


def test_a_run_may_give_a_value_for_each_of_several_rows() -> None:
    values = iter([(1.0, 10.0), (2.0, 20.0)])
    case = Case(rows=(("x", "first"), ("x", "second")), prepare=lambda: lambda: next(values), unit="MB")
    first, second = measure_interleaved((case,), 2, lambda _: None)
    assert (first.labels, first.samples, first.unit) == (("x", "first"), (1.0, 2.0), "MB")
    assert (second.labels, second.samples, second.unit) == (("x", "second"), (10.0, 20.0), "MB")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MissingPackageError("openvino", "bench", "not installed: pip install openvino"), "not installed: pip install"),
        (RuntimeError("it does not run\nsecond line"), "it does not run"),
        (OSError(), "OSError"),
        (MemoryError(), "MemoryError"),
        (KeyError("typo"), "KeyError: 'typo'"),
        (type("UnsupportedModelError", (Exception,), {})("no\nmore"), "UnsupportedModelError: no"),
    ],
)
def test_a_case_that_cannot_be_prepared_is_kept_with_its_reason(error: Exception, reason: str) -> None:
    clock = FakeClock()
    first, second, other = measure_interleaved((build_refused_case(error), clock.case("a", 0, 1, 2)), 2, lambda _: None)
    for each in (first, second):
        assert each.samples == ()
        assert each.reason.startswith(reason)
        assert "\n" not in each.reason
    assert other.samples == (1.0, 2.0)


def test_a_case_that_fails_in_a_later_round_has_no_samples_and_the_others_go_on() -> None:
    clock = FakeClock()
    broken, other = measure_interleaved((breaking(1), clock.case("a", 0, 1, 2, 3)), 3, lambda _: None)
    assert (broken.samples, broken.reason) == ((), "out of luck")
    assert other.samples == (1.0, 2.0, 3.0)


def test_an_interruption_ends_the_measurement() -> None:
    def interrupt() -> Run:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_interleaved((Case(rows=(("interrupted",),), prepare=interrupt),), 1, lambda _: None)


def test_each_step_is_logged() -> None:
    clock = FakeClock()
    lines: list[str] = []
    measure_interleaved((clock.case("a", 0, 1.5, 2), breaking(0)), 2, lines.append)
    assert lines == [
        "a: ready",
        "breaking: ready",
        "a, round 1 of 2: 1.5 s",
        "breaking: out of luck",
        "a, round 2 of 2: 2 s",
    ]


def test_a_measurement_is_found_by_all_its_labels() -> None:
    measurements = (build_measurement("a", 1), build_measurement("b", 2))
    assert find_measurement(measurements, "b") is measurements[1]
    with pytest.raises(LookupError, match=r"nothing was measured under \('a', 'b'\)"):
        find_measurement(measurements, "a", "b")


def test_measurements_are_combined_round_by_round() -> None:
    slow, fast, none = (
        build_measurement("slow", 10, 40, 30),
        build_measurement("fast", 5, 10, 10),
        build_measurement("none"),
    )
    assert combine_rounds(operator.truediv, slow, fast) == (2.0, 4.0, 3.0)
    assert combine_rounds(operator.sub, slow, fast) == (5.0, 30.0, 20.0)
    assert combine_rounds(operator.sub, slow, none) == combine_rounds(operator.sub, none, slow) == ()


@pytest.mark.parametrize(
    ("bound", "samples", "verdict"),
    [
        ("at least", (1.4, 1.5, 9.0), "holds"),
        ("at least", (1.4, 1.45, 9.0), "does not hold"),
        ("at most", (1.5, 1.6, 0.1), "holds"),
        ("at most", (1.6, 1.51, 0.1), "does not hold"),
        ("at most", (), "not measured"),
        ("at least", (), "not measured"),
    ],
)
def test_a_claim_holds_if_the_median_keeps_the_bound(bound: Bound, samples: Sequence[float], verdict: str) -> None:
    assert Claim(model="", what="", bound=bound, target=1.5, samples=tuple(samples)).verdict == verdict
