"""Read several digit files as one sample.

Seed, random stream and event number identify an event. Jobs of different seeds have different events even if the
numbers are equal: the sample has both, and a number may come more than once. The same event in two files is an error.
Where the provenance is unknown, the number alone identifies an event.
"""

from __future__ import annotations

import heapq
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.digits import Digits
from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats.metadata import explain_difference
from pxdbg_runtime.formats.reader import EventReader, open_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pxdbg_runtime.checks import StrPath
    from pxdbg_runtime.formats.provenance import Provenance
    from pxdbg_runtime.formats.reader import DigitReader

__all__ = ["MergedReader", "merge_files", "open_digits"]


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
        """Provenance of each job whose digits the files hold; empty if it is unknown."""
        return tuple(job for reader in self.readers for job in reader.jobs)

    @property
    def provenance(self) -> Provenance | None:
        """The only job; None if it is unknown or there are several."""
        return self.jobs[0] if len(self.jobs) == 1 else None

    @property
    def n_events(self) -> int:
        """Number of events of all files."""
        return sum(reader.n_events for reader in self.readers)

    @property
    def event_numbers(self) -> NDArray[np.int64]:
        """Numbers of the events of one file after the other; jobs of different seeds may have the same."""
        return np.concatenate([reader.event_numbers for reader in self.readers])

    @property
    def is_checked(self) -> bool:
        """Whether each file has a digest, which is compared with its rows."""
        return all(reader.is_checked for reader in self.readers)

    @property
    def remark(self) -> str:
        """Why the provenance is unknown; else empty."""
        return next((f"{reader.path}: {reader.remark}" for reader in self.readers if reader.remark), "")

    def __iter__(self) -> Iterator[Digits]:
        """Read all files event by event; raises as `EventReader.read_events`."""
        for _number, digits in self.read_events():
            yield digits

    def read_blocks(self) -> Iterator[Digits]:
        """Read all files in blocks of rows; raises as `EventReader.read_blocks`."""
        return itertools.chain.from_iterable(reader.read_blocks() for reader in self.readers)

    def read_events(self) -> Iterator[tuple[int, Digits]]:
        """Read all files event by event, number and digits; raises as `EventReader.read_events`."""
        return itertools.chain.from_iterable(reader.read_events() for reader in self.readers)

    def read_ordered_events(self) -> Iterator[tuple[int, Digits]]:
        """Read all files event by event, ordered by event number; raises as `EventReader.read_events`.

        Files are open at the same time, and have a block in memory each, only while their ranges of events overlap.
        """
        for group in _group_by_range(self.readers):
            yield from _read_together([self.readers[place] for place in group])

    def read(self) -> Digits:
        """Read all digits, of one file after the other.

        Raises
        ------
        ArgumentValueError
            If events of different jobs have the same number, which alone tells the events of `Digits` apart.
        DigitFileError
            As `EventReader.read_blocks`.
        """
        numbers = np.sort(self.event_numbers)
        common = numbers[1:][np.diff(numbers) == 0]
        if len(common):
            message = (
                f"The sample of {self.path} and other files has different events of the same number ({common[0]}), "
                "which read() would join: iterate over it, or generate one of the jobs with another --first-event."
            )
            raise ArgumentValueError("paths", message)
        return Digits.concatenate(self.read_blocks())


def merge_files(paths: Sequence[StrPath]) -> MergedReader:
    """Open digit files as one sample.

    Parameters
    ----------
    paths : sequence of str or path
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
    if readers[0].jobs:
        _check_jobs(readers)
    else:
        _check_event_numbers(readers)
    return MergedReader(readers=readers)


def open_digits(paths: StrPath | Iterable[StrPath]) -> DigitReader:
    """Open digit files of any formats, as one sample.

    Nothing but their metadata is read at once. Files without a digest, which other tools or older releases wrote, are
    also scanned for their events.

    Parameters
    ----------
    paths : str, path or iterable of them
        A file, or several, which are read one after the other.

    Returns
    -------
    DigitReader
        Iterate over it for the `Digits` of one event after the other, or call its `read()` for all digits at once.
        `jobs` tells how they were generated.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `open_events` and `merge_files`; damaged rows are found when they are read. `read()` also refuses a sample
        that has events of equal numbers and different seeds.

    Examples
    --------
    >>> import pxdbg_runtime
    >>> sample = pxdbg_runtime.open(["monday.parquet", "tuesday.root"])  # doctest: +SKIP
    >>> sample.n_events, sample.jobs[0].seed  # doctest: +SKIP
    (2000, 7)
    >>> for digits in sample:  # doctest: +SKIP
    ...     print(len(digits), digits.charge.mean())
    >>> sample.read().to_awkward()  # doctest: +SKIP
    """
    listed = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if len(listed) == 1:
        return open_events(listed[0])
    return merge_files(listed)


def _group_by_range(readers: Sequence[EventReader]) -> Iterator[list[int]]:
    """Group the places of files whose ranges of event numbers overlap, ordered by the first number."""
    group: list[int] = []
    last = -1
    for place in sorted(range(len(readers)), key=lambda place: int(readers[place].event_numbers[0])):
        numbers = readers[place].event_numbers
        if group and numbers[0] > last:
            yield group
            group = []
        group.append(place)
        last = max(last, int(numbers[-1]))
    yield group


def _read_together(readers: list[EventReader]) -> Iterator[tuple[int, Digits]]:
    """Read files event by event, ordered by event number."""
    return heapq.merge(*(reader.read_events() for reader in readers), key=lambda event: event[0])


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


def _check_jobs(readers: Sequence[EventReader]) -> None:
    """Check that no event is in two files whose jobs are known, by seed, random stream and number."""
    jobs = [(job, place) for place, reader in enumerate(readers) for job in reader.jobs]
    jobs.sort(key=lambda item: (item[0].seed, item[0].random_stream, item[0].first_event))
    # If any two jobs of a seed have common events, then so have two neighbours.
    for (ours, one), (theirs, other) in itertools.pairwise(jobs):
        if (ours.seed, ours.random_stream) == (theirs.seed, theirs.random_stream):
            n_events = min(ours.last_event, theirs.last_event) - theirs.first_event + 1
            if n_events > 0:
                first, second = readers[min(one, other)], readers[max(one, other)]
                seed = f" of seed {ours.seed}"
                raise _refuse_common_events(first, second, theirs.first_event, n_events, seed=seed)


def _check_event_numbers(readers: Sequence[EventReader]) -> None:
    """Check that no event number is in two files whose jobs are unknown."""
    for group in _group_by_range(readers):
        places = sorted(group)
        numbers = np.concatenate([readers[place].event_numbers for place in places])
        order = np.argsort(numbers, kind="stable")
        common = np.flatnonzero(np.diff(numbers[order]) == 0)
        if len(common):
            owners = np.repeat(places, [readers[place].n_events for place in places])
            one, other = (readers[owner] for owner in owners[order[common[0] : common[0] + 2]])
            both = np.intersect1d(one.event_numbers, other.event_numbers, assume_unique=True)
            raise _refuse_common_events(one, other, int(both[0]), len(both))


def _refuse_common_events(
    one: EventReader, other: EventReader, event: int, n_events: int, seed: str = ""
) -> DigitFileError:
    message = (
        f"{one.path} and {other.path} both hold event {event}{seed}, and {n_events:,} events in all: "
        "leave one of them out."
    )
    return DigitFileError(other.path, message)
