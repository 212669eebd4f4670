"""Intervals of validity: which payload of a global tag holds for an experiment and a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from export.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OPEN", "Interval", "PayloadEntry", "valid_entry"]

OPEN: Final = -1
"""As the end of an interval: no end."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An interval of validity: both ends belong to it.

    Attributes
    ----------
    first_experiment, first_run : int
    last_experiment, last_run : int
        `OPEN` where there is no end. An open experiment is open in its runs; an open run is all that follow
        within the last experiment.
    """

    first_experiment: int
    first_run: int
    last_experiment: int
    last_run: int

    def covers(self, experiment: int, run: int) -> bool:
        """Whether a run lies within.

        Examples
        --------
        >>> rest_of_7 = Interval(first_experiment=7, first_run=100, last_experiment=7, last_run=OPEN)
        >>> rest_of_7.covers(7, 99), rest_of_7.covers(7, 100), rest_of_7.covers(7, 9000), rest_of_7.covers(8, 0)
        (False, True, True, False)
        """
        if (experiment, run) < (self.first_experiment, self.first_run):
            return False
        if self.last_experiment == OPEN or experiment < self.last_experiment:
            return True
        return experiment == self.last_experiment and (self.last_run == OPEN or run <= self.last_run)


@dataclass(frozen=True, kw_only=True)
class PayloadEntry:
    """A payload as a global tag lists it.

    Attributes
    ----------
    name : str
    revision : int
    md5 : str
        32 hexadecimal digits in lower case.
    url : str
        Of the file.
    interval : Interval
    """

    name: str
    revision: int
    md5: str
    url: str
    interval: Interval


def valid_entry(entries: Iterable[PayloadEntry], experiment: int, run: int) -> PayloadEntry | None:
    """Choose the entry that holds for a run: of several, the one of the highest revision.

    Parameters
    ----------
    entries : iterable of PayloadEntry
        All of one name.
    experiment, run : int

    Returns
    -------
    PayloadEntry or None
        None if no interval covers the run.

    Raises
    ------
    ServerError
        If two different files claim to be this revision.
    """
    covering = [entry for entry in entries if entry.interval.covers(experiment, run)]
    if not covering:
        return None
    chosen = max(covering, key=lambda entry: entry.revision)
    for entry in covering:
        if entry.revision == chosen.revision and entry.md5 != chosen.md5:
            message = (
                f"The conditions database lists two files as revision {entry.revision} of {entry.name} for experiment {experiment}, run {run}, "
                f"with MD5 {chosen.md5} and {entry.md5}: expected one."
            )
            raise ServerError(message)
    return chosen
