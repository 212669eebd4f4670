"""Cut digits into whole events, those without digits too, and check that a file has one entry for each event."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.digits import Digits
from pxdbg_runtime.formats.interface import ContentError
from pxdbg_runtime.formats.provenance import MAX_FILE_EVENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["EntryChecker", "EventAssembler", "assemble_events", "find_event_starts"]


class EntryChecker:
    """Checks that the entries of a file, each with the digits of an event, are of different events.

    Otherwise the digits of two entries with one event number, of different jobs, would be joined.
    """

    def __init__(self) -> None:
        self._numbers = bytearray()  # int64, for an entry may come alone

    def add(self, numbers: NDArray[np.generic]) -> None:
        """Add the event numbers of some entries; raises `ContentError` if a file cannot have so many."""
        self._numbers += numbers.astype(np.int64).tobytes()
        if len(self._numbers) > MAX_FILE_EVENTS * np.int64().nbytes:
            message = f"holds more than {MAX_FILE_EVENTS:,} entries, one for each event: split it into several files"
            raise ContentError(message)

    def finish(self) -> None:
        """Check the numbers of all entries; raises `ContentError` if one comes twice."""
        numbers = np.sort(np.frombuffer(self._numbers, dtype=np.int64))
        common = numbers[1:][np.diff(numbers) == 0]
        if len(common):
            message = (
                f"holds two entries of event {common[0]}, expected one: leave out what was merged twice, and read "
                "files of different seeds as one sample instead of joining them"
            )
            raise ContentError(message)


class EventAssembler:
    """Cuts digits that come in order, in parts of any length, into whole events.

    Parameters
    ----------
    event_numbers : ndarray of int64
        Numbers of all events, ascending. Those without digits come too, as empty `Digits`.
    """

    def __init__(self, event_numbers: NDArray[np.int64]) -> None:
        self._event_numbers = event_numbers
        self._n_complete = 0
        self._parts: list[Digits] = []

    def add(self, digits: Digits) -> Iterator[tuple[int, Digits]]:
        """Add digits; yield number and digits of each event that is complete: a later one has digits."""
        starts = find_event_starts(digits.event).tolist()
        for start, stop in itertools.pairwise([*starts, len(digits)]):
            if self._parts and self._parts[0].event[0] != digits.event[start]:
                yield from self._complete_event()
            self._parts.append(digits if len(starts) == 1 else digits.select_rows(slice(start, stop)))

    def finish(self) -> Iterator[tuple[int, Digits]]:
        """Yield the last event with digits, and those without digits after it."""
        yield from self._complete_event()
        for number in self._event_numbers[self._n_complete :].tolist():
            yield number, Digits.empty()
        self._n_complete = len(self._event_numbers)

    def _complete_event(self) -> Iterator[tuple[int, Digits]]:
        if not self._parts:
            return
        digits, self._parts = Digits.concatenate(self._parts), []
        number = int(digits.event[0])
        place = int(np.searchsorted(self._event_numbers, number))
        empty, self._n_complete = self._event_numbers[self._n_complete : place], place + 1
        for each in empty.tolist():
            yield each, Digits.empty()
        yield number, digits


def assemble_events(blocks: Iterable[Digits], event_numbers: NDArray[np.int64]) -> Iterator[tuple[int, Digits]]:
    """Cut sorted blocks into the events of these numbers: number and digits of each."""
    assembler = EventAssembler(event_numbers)
    for block in blocks:
        yield from assembler.add(block)
    yield from assembler.finish()


def find_event_starts(events: NDArray[np.int64]) -> NDArray[np.intp]:
    """Find the rows with another event number than the row before them; the first row is one of them."""
    is_start = np.ones(len(events), dtype=bool)
    np.not_equal(events[1:], events[:-1], out=is_start[1:])
    return np.flatnonzero(is_start)
