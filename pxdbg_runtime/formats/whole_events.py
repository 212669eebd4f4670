"""Cut digits into whole events, those without digits too."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pxdbg_runtime.digits import Digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["EventAssembler", "assemble_events"]


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
        starts = np.flatnonzero(np.diff(digits.event, prepend=-1)).tolist()
        for start, stop in itertools.pairwise([*starts, len(digits)]):
            if self._parts and self._parts[0].event[0] != digits.event[start]:
                yield from self._complete_event()
            self._parts.append(digits.select_rows(slice(start, stop)))

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
