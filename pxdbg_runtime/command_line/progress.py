"""Progress of a long command: a bar on a terminal, lines in a log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from pxdbg_runtime.command_line.console import stderr
from pxdbg_runtime.command_line.signals import raise_if_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["show_progress", "track"]

Item = TypeVar("Item")
_LINE_INTERVAL_S: Final = 60.0
_LINES: Final = 10


def track(items: Iterable[Item], *, total: int, description: str) -> Iterator[Item]:
    """Yield items, and show on the standard error how many are done.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    description : str
        Their name in the plural: "events".
    """
    with show_progress(total=total, description=description) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def show_progress(*, total: int, description: str) -> Iterator[Callable[[], None]]:
    """Show on the standard error how many items are done.

    A terminal shows a bar. Elsewhere, and on a terminal that cannot move its cursor, one line is printed at the start,
    one at the end, and between them one for each minute or each tenth of the work, whichever is rarer.

    Parameters
    ----------
    total : int
    description : str
        Name of the items in the plural: "events".

    Yields
    ------
    callable
        Call it after each item.
    """
    show = _show_bar if stderr.draws_bars else _show_lines
    with show(total, description) as advance:

        def advance_unless_stopped() -> None:
            advance()
            raise_if_stopped()

        yield advance_unless_stopped


@contextmanager
def _show_bar(total: int, description: str) -> Iterator[Callable[[], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    # The standard output must not be redirected to the bar's console.
    with Progress(*columns, console=stderr, redirect_stdout=False) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(_format_rate(task.speed, task.description) if task.speed else "")


@contextmanager
def _show_lines(total: int, description: str) -> Iterator[Callable[[], None]]:
    lines = _Lines(total, description)
    yield lines.advance
    lines.end()


class _Lines:
    """Progress in lines."""

    def __init__(self, total: int, description: str) -> None:
        self._total = total
        self._description = description
        self._done = 0
        self._start_s = self._last_s = time.monotonic()
        self._last_done = 0
        self._print("")

    def advance(self) -> None:
        self._done += 1
        now_s = time.monotonic()
        is_due = now_s - self._last_s >= _LINE_INTERVAL_S and (self._done - self._last_done) * _LINES >= self._total
        if is_due and self._done < self._total:
            passed_s = now_s - self._start_s
            left_s = passed_s / self._done * (self._total - self._done)
            self._print(f", {self._rate(passed_s)}, {_format_duration(left_s)} left")
            self._last_s, self._last_done = now_s, self._done

    def end(self) -> None:
        passed_s = time.monotonic() - self._start_s
        rate = f", {self._rate(passed_s)}" if self._done and passed_s > 0 else ""
        self._print(f" in {_format_duration(passed_s)}{rate}")

    def _rate(self, passed_s: float) -> str:
        return _format_rate(self._done / passed_s, self._description)

    def _print(self, rest: str) -> None:
        stderr.print(f"{self._description}: {self._done}/{self._total}{rest}", soft_wrap=True)


def _format_rate(per_second: float, description: str) -> str:
    return f"{per_second:.1f} {description}/s" if per_second >= 1 else f"{per_second:.2g} {description}/s"


def _format_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
