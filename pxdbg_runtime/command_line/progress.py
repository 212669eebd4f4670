"""Progress of a long command: a bar on a terminal, lines in a log."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from pxdbg_runtime.command_line.console import stderr
from pxdbg_runtime.command_line.signals import raise_if_stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Progress", "format_duration", "show_progress", "track"]

Item = TypeVar("Item")
_LINE_INTERVAL_S: Final = 60.0
_LINES: Final = 10


class Progress(NamedTuple):
    """How a command reports its progress.

    Attributes
    ----------
    advance : callable
        Call it with the number of items that were done since the last call.
    omit : callable
        Call it with a number of items that need not be done: they leave the total, and count for no rate.
    """

    advance: Callable[[int], None]
    omit: Callable[[int], None]


def track(items: Iterable[Item], *, total: int, description: str, shows_rate: bool = True) -> Iterator[Item]:
    """Yield items, and show on the standard error how many are done.

    Parameters
    ----------
    items : iterable
    total : int
        Number of items.
    description : str
        Their name in the plural: "events".
    shows_rate : bool
        Whether to show items per second.
    """
    with show_progress(total=total, description=description, shows_rate=shows_rate) as progress:
        for item in items:
            yield item
            progress.advance(1)


@contextmanager
def show_progress(*, total: int, description: str, shows_rate: bool = True) -> Iterator[Progress]:
    """Show on the standard error how many items are done.

    A terminal shows a bar. Elsewhere, and on a terminal that cannot move its cursor, one line is printed at the start,
    one at the end, and between them one for each minute or each tenth of the work, whichever is rarer.

    Parameters
    ----------
    total : int
    description : str
        Name of the items in the plural: "events".
    shows_rate : bool
        Whether to show items per second.

    Yields
    ------
    Progress
    """
    show = _show_bar if stderr.draws_bars else _show_lines
    with show(total, description, shows_rate=shows_rate) as progress:

        def advance_unless_stopped(n_items: int) -> None:
            progress.advance(n_items)
            raise_if_stopped()

        yield progress._replace(advance=advance_unless_stopped)


@contextmanager
def _show_bar(total: int, description: str, *, shows_rate: bool) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([_RateColumn()] if shows_rate else []),
        TimeRemainingColumn(),
    )
    # The standard output must not be redirected to the bar's console.
    with RichProgress(*columns, console=stderr, redirect_stdout=False) as bar:
        task = bar.add_task(description, total=total)

        def omit(n_items: int) -> None:
            nonlocal total
            total -= n_items
            bar.update(task, total=total)

        yield Progress(lambda n_items: bar.advance(task, n_items), omit)


class _RateColumn(TextColumn):
    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        return Text(_format_rate(task.speed, task.description) if task.speed else "")


@contextmanager
def _show_lines(total: int, description: str, *, shows_rate: bool) -> Iterator[Progress]:
    start_s = line_s = time.monotonic()
    done = line_done = 0

    def print_line(rest: str) -> None:
        stderr.print(f"{description}: {done}/{total}{rest}", soft_wrap=True)

    def format_rate(passed_s: float) -> str:
        is_known = shows_rate and done and passed_s > 0
        return f", {_format_rate(done / passed_s, description)}" if is_known else ""

    def advance(n_items: int) -> None:
        nonlocal done, line_done, line_s
        done += n_items
        now_s = time.monotonic()
        is_due = now_s - line_s >= _LINE_INTERVAL_S and (done - line_done) * _LINES >= total
        if is_due and done < total:
            passed_s = now_s - start_s
            left_s = passed_s / done * (total - done)
            print_line(f"{format_rate(passed_s)}, {format_duration(left_s)} left")
            line_s, line_done = now_s, done

    def omit(n_items: int) -> None:
        nonlocal total
        total -= n_items

    print_line("")
    yield Progress(advance, omit)
    passed_s = time.monotonic() - start_s
    print_line(f" in {format_duration(passed_s)}{format_rate(passed_s)}")


def _format_rate(per_second: float, description: str) -> str:
    return f"{per_second:.1f} {description}/s" if per_second >= 1 else f"{per_second:.2g} {description}/s"


def format_duration(seconds: float) -> str:
    """Write a duration as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
