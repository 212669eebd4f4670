"""Intervals of validity: which payload of a global tag is valid for an experiment and a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from export.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OPEN", "BoundNumber", "Interval", "PayloadEntry", "find_valid_entry"]

OPEN: Final = -1
"""As the end of an interval: no end."""
BoundNumber = Annotated[int, msgspec.Meta(ge=OPEN)]
"""Experiment or run at an end of an interval."""


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """An interval of validity, both ends included; in JSON the fields have the names of the conditions database.

    Attributes
    ----------
    first_experiment, first_run : int
    last_experiment, last_run : int
        `OPEN` for no end. If the last experiment is open, the last run is ignored; if the last run is open, all further
        runs of the last experiment belong to the interval.
    """

    first_experiment: BoundNumber = msgspec.field(name="expStart")
    first_run: BoundNumber = msgspec.field(name="runStart")
    last_experiment: BoundNumber = msgspec.field(name="expEnd")
    last_run: BoundNumber = msgspec.field(name="runEnd")

    def covers(self, experiment: int, run: int) -> bool:
        """Whether a run is in the interval.

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
    """A payload that a global tag lists.

    Attributes
    ----------
    name : str
    revision : int
    md5 : str
        32 hexadecimal digits in lower case.
    payload_url : str
        Path of the file below a base URL.
    base_url : str or None
        Base URL of the files of its source, if there is one.
    interval : Interval
    """

    name: str
    revision: int
    md5: str
    payload_url: str
    base_url: str | None
    interval: Interval


def find_valid_entry(entries: Iterable[PayloadEntry], experiment: int, run: int) -> PayloadEntry | None:
    """Find the entry of the highest revision that is valid for a run; None if no interval covers the run.

    Parameters
    ----------
    entries : iterable of PayloadEntry
        All of one name.
    experiment, run : int

    Raises
    ------
    ServerError
        If two different files have this revision.
    """
    covering = [entry for entry in entries if entry.interval.covers(experiment, run)]
    newest = max(covering, key=lambda entry: entry.revision, default=None)
    for entry in covering:
        if newest is not None and entry.revision == newest.revision and entry.md5 != newest.md5:
            message = (
                f"The conditions database lists two files as revision {entry.revision} of {entry.name} for experiment "
                f"{experiment}, run {run}, with MD5 {newest.md5} and {entry.md5}: expected one."
            )
            raise ServerError(message)
    return newest
