"""Read several digit files as one sample.

Seed, random stream and event number identify an event. Jobs of different seeds have different events even if the
numbers are equal: the sample has both, and a number may come more than once. The same event in two files is an error.
Where the provenance is unknown, the number alone identifies an event.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats.metadata import explain_difference
from pxdbg_runtime.formats.reader import EventReader, open_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["MergedReader", "merge_files"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedReader:
    """Reads the digits of several files, one file after the other, as one sample.

    Attributes
    ----------
    readers : tuple of EventReader
    """

    readers: tuple[EventReader, ...]

    @property
    def path(self) -> Path:
        """The first file."""
        return self.readers[0].path

    @property
    def jobs(self) -> tuple[Provenance, ...]:
        """Provenance of each file; empty if it is unknown."""
        return tuple(job for reader in self.readers for job in reader.jobs)

    @property
    def n_events(self) -> int:
        """Number of events of all files."""
        return sum(reader.n_events for reader in self.readers)

    @property
    def is_checked(self) -> bool:
        """Whether each file has a digest, which is compared with its rows."""
        return all(reader.is_checked for reader in self.readers)

    @property
    def remark(self) -> str:
        """Why the provenance is unknown; else empty."""
        return next((f"{reader.path}: {reader.remark}" for reader in self.readers if reader.remark), "")

    def read_blocks(self) -> Iterator[Digits]:
        """Read all files in blocks of rows; raises as `EventReader.read_blocks`."""
        return itertools.chain.from_iterable(reader.read_blocks() for reader in self.readers)

    def read_events(self) -> Iterator[tuple[int, Digits]]:
        """Read all files event by event, number and digits; raises as `EventReader.read_events`."""
        return itertools.chain.from_iterable(reader.read_events() for reader in self.readers)


def merge_files(paths: Sequence[Path]) -> MergedReader:
    """Open digit files as one sample.

    Parameters
    ----------
    paths : sequence of Path
        At least one.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `open_events`; also if there is no file, if two differ in how they were generated, or if both hold an event.
    """
    if not paths:
        raise ArgumentValueError("paths", "A sample needs at least one digit file, but none was given.")
    readers = tuple(open_events(path) for path in paths)
    for reader in readers[1:]:
        _check_common_fields(readers[0], reader)
    for one, other in itertools.combinations(readers, 2):
        _check_disjoint(one, other)
    return MergedReader(readers=readers)


def _check_common_fields(one: EventReader, other: EventReader) -> None:
    if not one.jobs and not other.jobs:
        return
    if not one.jobs or not other.jobs:
        unknown = other if one.jobs else one
        message = (
            f"{one.path} and {other.path} are not one sample: how the digits of {unknown.path} were generated "
            f"is unknown ({unknown.remark}). Give them one by one."
        )
        raise DigitFileError(unknown.path, message)
    difference = explain_difference(one.jobs[0], other.jobs[0])
    if difference:
        message = f"{one.path} and {other.path} are not one sample: {difference}. Give them one by one."
        raise DigitFileError(other.path, message)


def _check_disjoint(one: EventReader, other: EventReader) -> None:
    if not one.jobs and not other.jobs:
        if one.event_numbers[-1] < other.event_numbers[0] or other.event_numbers[-1] < one.event_numbers[0]:
            return
        both = np.intersect1d(one.event_numbers, other.event_numbers, assume_unique=True)
        if len(both):
            raise _refuse_common_events(one, other, int(both[0]), len(both))
    for ours, theirs in itertools.product(one.jobs, other.jobs):
        if (ours.seed, ours.random_stream) == (theirs.seed, theirs.random_stream):
            first = max(ours.first_event, theirs.first_event)
            n_events = min(ours.last_event, theirs.last_event) - first + 1
            if n_events > 0:
                raise _refuse_common_events(one, other, first, n_events, seed=f" of seed {ours.seed}")


def _refuse_common_events(
    one: EventReader, other: EventReader, event: int, n_events: int, seed: str = ""
) -> DigitFileError:
    message = (
        f"{one.path} and {other.path} both hold event {event}{seed}, and {n_events:,} events in all: "
        "leave one of them out."
    )
    return DigitFileError(other.path, message)
