"""What a digit file records about its digits: one job, or several if files were merged."""

from __future__ import annotations

import itertools
import json
import operator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Self

import numpy as np
from msgspec import Meta, structs

from pxdbg_runtime.errors import ArgumentValueError, JsonFieldError
from pxdbg_runtime.formats.digest import StoredRecord
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS, Provenance
from pxdbg_runtime.json_records import parse_json
from pxdbg_runtime.sensors import describe_sensors, select_sensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pxdbg_runtime.formats.run_numbers import RunNumbers
    from pxdbg_runtime.sensors import Sensor

__all__ = ["FileMetadata", "explain_difference", "join_consecutive_jobs"]

_COMMON_FIELDS: Final = ("model", "nature", "provenance", "precision", "graph_sha256", "min_charge", "sensors")
"""Fields of `Provenance` that are equal in all jobs of one sample."""
_JOBS: Final = "jobs"


class _StoredJobs(StoredRecord, frozen=True):
    jobs: Annotated[tuple[Provenance, ...], Meta(min_length=2)]


_SHOWN_LENGTH: Final = 200
"""Of a text in a message."""


@dataclass(frozen=True, kw_only=True)
class FileMetadata:
    """What a digit file records about its digits.

    Attributes
    ----------
    jobs : tuple of Provenance
        One for a file that a job wrote; several for a merged file, ordered by their first event. No two have an event
        number in common, and they differ in seed, stream, events, provider and version alone.
    run_numbers : RunNumbers or None
        Experiment and run of the events, for formats that record them; not part of the JSON.

    Raises
    ------
    ArgumentValueError
        If there is no job, two are not one sample, two have an event number, or they have more than a million events.
    """

    jobs: tuple[Provenance, ...]
    run_numbers: RunNumbers | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.jobs:
            raise ArgumentValueError("jobs", "The metadata of a digit file need at least one job, but have none.")
        n_events = sum(job.events for job in self.jobs)
        if n_events > MAX_FILE_EVENTS:
            message = (
                f"A digit file holds at most {MAX_FILE_EVENTS:,} events, but its jobs have {n_events:,}: "
                "split them over several files, which are read as one sample."
            )
            raise ArgumentValueError("events", message)
        ordered = tuple(sorted(self.jobs, key=lambda job: job.first_event))
        for one, other in itertools.pairwise(ordered):
            difference = explain_difference(one, other)
            if difference:
                raise ArgumentValueError("jobs", f"Two jobs are not one sample: {difference}.")
            if other.first_event <= one.last_event:
                message = (
                    f"Two jobs have an event of the number {other.first_event}, of the seeds {one.seed} and "
                    f"{other.seed}, but each event of a file needs a number of its own: generate one of them with "
                    "another --first-event."
                )
                raise ArgumentValueError("jobs", message)
        object.__setattr__(self, "jobs", ordered)

    @cached_property
    def event_numbers(self) -> NDArray[np.int64]:
        """Numbers of the events, ascending; some may be without digits."""
        return np.concatenate([np.arange(job.events, dtype=np.int64) + job.first_event for job in self.jobs])

    @property
    def min_charge(self) -> int:
        """Zero-suppression threshold in ADU."""
        return self.jobs[0].min_charge

    @cached_property
    def generated_sensors(self) -> tuple[Sensor, ...]:
        """The sensors that were generated, ordered by index."""
        return self.jobs[0].generated_sensors

    def to_json(self) -> str:
        """Write it as JSON: that of `Provenance` for one job, else a list of jobs."""
        if len(self.jobs) == 1:
            return self.jobs[0].to_json()
        jobs = [structs.asdict(job) for job in self.jobs]
        return json.dumps({"schema": 1, _JOBS: jobs}, default=operator.index)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; raises `JsonFieldError` if a field is missing or invalid."""
        content = parse_json(text)
        if not isinstance(content, dict) or _JOBS not in content:
            return cls(jobs=(Provenance.from_json(text),))
        jobs = _StoredJobs.from_json(text).jobs
        for job in jobs:
            job.check()
        try:
            return cls(jobs=jobs)
        except ArgumentValueError as error:
            raise JsonFieldError(_JOBS, str(error)) from None


def join_consecutive_jobs(jobs: Sequence[Provenance]) -> tuple[Provenance, ...]:
    """Join jobs that follow on each other and differ in their events alone: as one job would have recorded them.

    Parameters
    ----------
    jobs : sequence of Provenance
        Ordered by their first event, without common events.
    """
    joined: list[Provenance] = []
    for job in jobs:
        last = joined[-1] if joined else None
        if last is not None and job == structs.replace(last, first_event=last.last_event + 1, events=job.events):
            joined[-1] = structs.replace(last, events=last.events + job.events)
        else:
            joined.append(job)
    return tuple(joined)


def _shorten(value: object) -> str:
    """Write a value on one line, cut if it is long: a text from a file may hold anything."""
    text = str(value)
    if text.isprintable() and len(text) <= _SHOWN_LENGTH:
        return text
    return repr(text[:_SHOWN_LENGTH]) + ("…" if len(text) > _SHOWN_LENGTH else "")


def explain_difference(one: Provenance, other: Provenance) -> str:
    """Explain in half a sentence why two jobs are not one sample; empty if they are."""
    for name in _COMMON_FIELDS:
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours != theirs:
            verb = "differs"
            if name == "sensors":
                verb = "differ"
                ours, theirs = (describe_sensors(select_sensors(names)) for names in (ours, theirs))
            return f"their {name} {verb}, {_shorten(ours)} and {_shorten(theirs)}"
    return ""
