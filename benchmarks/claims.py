"""What is to be reached, and whether it was."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchmarks.timing import Measurement

__all__ = ["Claim", "difference", "ratio"]

Bound = Literal["at least", "at most"]
Verdict = Literal["holds", "does not hold", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A bound, and what was measured against it.

    Attributes
    ----------
    model : str
    what : str
    bound : {"at least", "at most"}
    target : float
    samples : tuple of float
        One a round; none if what it takes was not measured.
    """

    model: str
    what: str
    bound: Bound
    target: float
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the samples, of which there must be some."""
        return statistics.median(self.samples)

    @property
    def verdict(self) -> Verdict:
        """Whether the median keeps the bound."""
        if not self.samples:
            return "not measured"
        holds = self.median >= self.target if self.bound == "at least" else self.median <= self.target
        return "holds" if holds else "does not hold"


def ratio(numerator: Measurement, denominator: Measurement) -> tuple[float, ...]:
    """Divide round by round: what slows a whole round down cancels out.

    Returns
    -------
    tuple of float
        One a round; none if either was not measured.
    """
    if not numerator.samples or not denominator.samples:
        return ()
    return tuple(above / below for above, below in zip(numerator.samples, denominator.samples, strict=True))


def difference(whole: Measurement, part: Measurement) -> tuple[float, ...]:
    """Subtract round by round.

    Returns
    -------
    tuple of float
        One a round; none if either was not measured.
    """
    if not whole.samples or not part.samples:
        return ()
    return tuple(more - less for more, less in zip(whole.samples, part.samples, strict=True))
