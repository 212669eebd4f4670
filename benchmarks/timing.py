"""Interleaved measurements: every case once a round, round after round, so that a slow minute falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pxdbg_runtime.errors import PxdbgError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SECONDS", "Case", "Measurement", "Run", "chosen", "interleaved", "timed"]

Run = Callable[[], tuple[float, ...]]
"""Does the work once and gives one value a row of its case."""
SECONDS: Final = "s"
_FAILURES: Final = (PxdbgError, ImportError, RuntimeError, OSError, MemoryError)
"""What a case may end with without ending the others: the packages measured raise these and their subclasses."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure.

    Attributes
    ----------
    rows : tuple of tuple of str
        Labels of each value that a run gives; most runs give one.
    prepare : callable
        Makes the case ready, warm-up included, and returns what runs it once.
    unit : str
        Of the values.
    """

    rows: tuple[tuple[str, ...], ...]
    prepare: Callable[[], Run]
    unit: str = SECONDS


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What came out for one row of labels.

    Attributes
    ----------
    labels : tuple of str
    unit : str
    samples : tuple of float
        One a round, in their order; none if it could not be measured.
    reason : str
        Why there are none; empty otherwise.
    """

    labels: tuple[str, ...]
    unit: str
    samples: tuple[float, ...] = ()
    reason: str = ""

    @property
    def median(self) -> float:
        """Median of the samples, of which there must be some."""
        return statistics.median(self.samples)

    @property
    def smallest(self) -> float:
        """Smallest sample."""
        return min(self.samples)

    @property
    def largest(self) -> float:
        """Largest sample."""
        return max(self.samples)


@dataclass(kw_only=True)
class _Progress:
    """A case on its way."""

    case: Case
    run: Run | None = None
    reason: str = ""
    values: list[tuple[float, ...]] = field(default_factory=list)


def timed(
    work: Callable[[], object],
    *,
    warm_up: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Warm a piece of work up, and make what times it.

    Parameters
    ----------
    work : callable
        What is timed.
    warm_up : callable, optional
        Called once, now; the work itself if None.
    clock : callable
        Gives seconds.

    Returns
    -------
    Run
        Gives the seconds.
    """
    (warm_up or work)()

    def run() -> tuple[float, ...]:
        start = clock()
        work()
        return (clock() - start,)

    return run


def interleaved(cases: Sequence[Case], rounds: int, log: Callable[[str], None]) -> tuple[Measurement, ...]:
    """Prepare all cases, then run each once a round.

    A case that fails is left out from then on, with the reason in its measurements: nothing is dropped silently.

    Parameters
    ----------
    cases : sequence of Case
    rounds : int
        1 or more.
    log : callable
        Called with a line after each step.

    Returns
    -------
    tuple of Measurement
        One for each row of each case, in their order.
    """
    on_their_way = [_Progress(case=case) for case in cases]
    for each in on_their_way:
        _prepare(each, log)
    for number in range(1, rounds + 1):
        for each in on_their_way:
            _run(each, f"round {number} of {rounds}", log)
    return tuple(measurement for each in on_their_way for measurement in _measurements(each))


def chosen(measurements: Sequence[Measurement], *labels: str) -> Measurement:
    """Find the measurement of a row of labels.

    Raises
    ------
    LookupError
        If there is none.
    """
    for measurement in measurements:
        if measurement.labels == labels:
            return measurement
    message = f"nothing was measured under {labels}"
    raise LookupError(message)


def _prepare(progress: _Progress, log: Callable[[str], None]) -> None:
    name = _name(progress.case)
    try:
        progress.run = progress.case.prepare()
    except _FAILURES as error:
        _give_up(progress, error, log)
    else:
        log(f"{name}: ready")


def _run(progress: _Progress, when: str, log: Callable[[str], None]) -> None:
    if progress.run is None:
        return
    try:
        values = progress.run()
    except _FAILURES as error:
        _give_up(progress, error, log)
        return
    progress.values.append(values)
    log(f"{_name(progress.case)}, {when}: {', '.join(f'{value:.4g}' for value in values)} {progress.case.unit}")


def _give_up(progress: _Progress, error: BaseException, log: Callable[[str], None]) -> None:
    progress.run = None
    progress.values.clear()
    lines = str(error).strip().splitlines()
    progress.reason = lines[0] if lines else type(error).__name__
    log(f"{_name(progress.case)}: {progress.reason}")


def _measurements(progress: _Progress) -> tuple[Measurement, ...]:
    columns = tuple(zip(*progress.values, strict=True)) or ((),) * len(progress.case.rows)
    return tuple(
        Measurement(labels=labels, unit=progress.case.unit, samples=samples, reason=progress.reason)
        for labels, samples in zip(progress.case.rows, columns, strict=True)
    )


def _name(case: Case) -> str:
    return ", ".join(case.rows[0])
