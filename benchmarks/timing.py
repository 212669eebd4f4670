"""Interleaved measurements: each round runs every case once, so that a slow minute affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from pxdbg_runtime.errors import PxdbgError

T = TypeVar("T")
Run = Callable[[], tuple[float, ...]]
"""Does the work once and returns one value for each row of its case."""
SECONDS: Final = "s"
EVENTS_PER_SECOND: Final = "events/s"
_EXPLAINED: Final = (PxdbgError, ImportError, RuntimeError, OSError)
"""Errors whose message is a sentence; of others the name of the class is shown too."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure: `prepare` warms up and returns what runs it once; each row labels one value of a run."""

    rows: tuple[tuple[str, ...], ...]
    prepare: Callable[[], Run]
    unit: str = SECONDS


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The samples of one row of labels, one for each round; or none, and the reason."""

    labels: tuple[str, ...]
    unit: str
    samples: tuple[float, ...] = ()
    reason: str = ""

    @property
    def median(self) -> float:
        """Median of the samples, which must not be empty."""
        return statistics.median(self.samples)


def build_cases(
    labels: tuple[str, ...], preparations: Mapping[str, Callable[[], Run]], unit: str = SECONDS
) -> tuple[Case, ...]:
    """Build cases of one row each: common labels, then the name of the preparation."""
    return tuple(Case(rows=((*labels, name),), prepare=prepare, unit=unit) for name, prepare in preparations.items())


def time_run(
    work: Callable[[], object],
    *,
    warm_up: Callable[[], object] | None = None,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Warm up, with the work itself by default, and return a function that measures its mean seconds over repeats."""
    (warm_up or work)()

    def run() -> tuple[float, ...]:
        start = clock()
        for _ in range(repeats):
            work()
        return ((clock() - start) / repeats,)

    return run


def time_rate(
    work: Callable[[], object],
    n_events: int,
    *,
    warm_up: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Warm up as `time_run` does, and return a function that measures the events a second of work on `n_events`."""
    run = time_run(work, warm_up=warm_up, clock=clock)
    return lambda: tuple(n_events / seconds for seconds in run())


def prepare_constants(*values: float) -> Run:
    """Return a function that returns values which need no measurement."""
    return lambda: values


def measure_interleaved(cases: Sequence[Case], rounds: int, log: Callable[[str], None]) -> tuple[Measurement, ...]:
    """Prepare all cases, then run each of them once in every round, and return a measurement for each of their rows.

    A case that fails is not run again: its measurements have the reason and no samples.
    """
    trials = [_Trial(case, log) for case in cases]
    for trial in trials:
        trial.prepare()
    for number in range(1, rounds + 1):
        for trial in trials:
            trial.run_round(f"round {number} of {rounds}")
    return tuple(measurement for trial in trials for measurement in trial.list_measurements())


def find_measurement(measurements: Sequence[Measurement], *labels: str) -> Measurement:
    """Find the measurement with these labels; raises LookupError if there is none."""
    for measurement in measurements:
        if measurement.labels == labels:
            return measurement
    message = f"nothing was measured under {labels}"
    raise LookupError(message)


@dataclass
class _Trial:
    """A case during its measurement; `run` is None once it has failed."""

    case: Case
    log: Callable[[str], None]
    run: Run | None = None
    reason: str = ""
    values: list[tuple[float, ...]] = field(default_factory=list)

    def prepare(self) -> None:
        self.run = self.attempt(self.case.prepare)
        if self.run is not None:
            self.log(f"{self.name()}: ready")

    def run_round(self, when: str) -> None:
        if self.run is not None and (values := self.attempt(self.run)) is not None:
            self.values.append(values)
            self.log(f"{self.name()}, {when}: {', '.join(f'{value:.4g}' for value in values)} {self.case.unit}")

    def attempt(self, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except Exception as error:  # noqa: BLE001  # whatever a package raises, the other cases are measured
            self.reason = _explain(error)
        self.run = None
        self.values.clear()
        self.log(f"{self.name()}: {self.reason}")
        return None

    def name(self) -> str:
        return ", ".join(self.case.rows[0])

    def list_measurements(self) -> list[Measurement]:
        samples = tuple(zip(*self.values, strict=True)) or ((),) * len(self.case.rows)
        return [
            Measurement(labels=labels, unit=self.case.unit, samples=each, reason=self.reason)
            for labels, each in zip(self.case.rows, samples, strict=True)
        ]


def _explain(error: Exception) -> str:
    """Return the first line of a message, after the name of its class if that may be needed."""
    name, line = type(error).__name__, next(iter(str(error).strip().splitlines()), "")
    if not line:
        return name
    return line if isinstance(error, _EXPLAINED) else f"{name}: {line}"
