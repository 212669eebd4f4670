"""Several files of digits as one sample.

An event is known by its job's seed, its random stream and its number. So two jobs of other seeds have other events, also
where the numbers are the same: both are in the sample, and a number may come more than once. The same event in two files
is an error. Where it is unknown how the digits were made, events are known by their numbers alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pxdbg_runtime.errors import ArgumentValueError, DigitFileError
from pxdbg_runtime.formats.reader import EventReader, open_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pxdbg_runtime.digits import Digits
    from pxdbg_runtime.formats.provenance import Provenance

__all__ = ["MergedReader", "merge_files"]

_SAME: Final = ("model", "nature", "provenance", "precision", "graph_sha256", "min_charge")
"""What the files of one sample have in common."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MergedReader:
    """Gives the digits of several files, one file after the other, as one sample.

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
        """How the digits of each file were made; empty if that is unknown."""
        return tuple(job for reader in self.readers for job in reader.jobs)

    @property
    def n_events(self) -> int:
        """Number of events of all files."""
        return sum(reader.n_events for reader in self.readers)

    @property
    def is_checked(self) -> bool:
        """Whether each file carries a digest, which is compared with its rows."""
        return all(reader.is_checked for reader in self.readers)

    @property
    def remark(self) -> str:
        """Why it is unknown how the digits were made; else empty."""
        return next((f"{reader.path}: {reader.remark}" for reader in self.readers if reader.remark), "")

    def blocks(self) -> Iterator[Digits]:
        """Read all files in blocks of rows; raises as `EventReader.blocks`."""
        return itertools.chain.from_iterable(reader.blocks() for reader in self.readers)

    def numbered(self) -> Iterator[tuple[int, Digits]]:
        """Read all files event by event, number and digits; raises as `EventReader.numbered`."""
        return itertools.chain.from_iterable(reader.numbered() for reader in self.readers)


def merge_files(paths: Sequence[Path]) -> MergedReader:
    """Open files of digits as one sample.

    Parameters
    ----------
    paths : sequence of Path
        At least one.

    Raises
    ------
    ArgumentValueError, MissingPackageError, DigitFileError
        As `open_events`; also if there is no file, if two were not made alike, or if an event is in both.
    """
    if not paths:
        message = "A sample needs one file of digits at least, but none was given."
        raise ArgumentValueError("paths", message)
    readers = tuple(open_events(path) for path in paths)
    for reader in readers[1:]:
        _check_alike(readers[0], reader)
    for one, other in itertools.combinations(readers, 2):
        _check_disjoint(one, other)
    return MergedReader(readers=readers)


def _check_alike(one: EventReader, other: EventReader) -> None:
    if one.describe_generation is None and other.describe_generation is None:
        return
    if one.describe_generation is None or other.describe_generation is None:
        unknown = one if one.describe_generation is None else other
        message = (
            f"{one.path} and {other.path} are not one sample: how the digits of {unknown.path} were made is unknown "
            f"({unknown.remark}). Give them one by one."
        )
        raise DigitFileError(unknown.path, message)
    for name in _SAME:
        ours, theirs = getattr(one.describe_generation, name), getattr(other.describe_generation, name)
        if ours != theirs:
            message = (
                f"{one.path} and {other.path} are not one sample: their {name} differs, {ours} and {theirs}. "
                "Give them one by one."
            )
            raise DigitFileError(other.path, message)


def _check_disjoint(one: EventReader, other: EventReader) -> None:
    ours, theirs = one.describe_generation, other.describe_generation
    if ours is not None and theirs is not None:
        if (ours.seed, ours.random_stream) != (theirs.seed, theirs.random_stream):
            return
        of_seed = f" of seed {ours.seed}"
    else:
        of_seed = ""
    if one.event_numbers[-1] < other.event_numbers[0] or other.event_numbers[-1] < one.event_numbers[0]:
        return
    both = np.intersect1d(one.event_numbers, other.event_numbers, assume_unique=True)
    if len(both):
        message = (
            f"{one.path} and {other.path} both hold event {both[0]}{of_seed}, and {len(both):,} events in all: "
            "leave one of them out."
        )
        raise DigitFileError(other.path, message)
