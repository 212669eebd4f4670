"""What ``python -m export --from-conditions`` does before the export: the checkpoint, with a bar while it comes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as ProgressBars

from export.conditions.cache import default_cache
from export.conditions.fetching import Fetched, fetch_payload
from export.conditions.naming import checkpoint_payload_name
from export.conditions.servers import servers_to_ask
from pxdbg_runtime.command_line.console import stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from export.conditions.transport import Progress

__all__ = ["fetch_checkpoint"]


def fetch_checkpoint(
    global_tag: str,
    family: str,
    *,
    experiment: int,
    run: int,
    servers: Sequence[str],
    cache: Path | None,
    log: Callable[[str], None],
) -> Fetched:
    """Give the checkpoint of a model from the conditions database.

    Parameters
    ----------
    global_tag : str
    family : str
        ``convnet`` or ``resnet``.
    experiment, run : int
    servers : sequence of str
        Base URLs; basf2's if there is none.
    cache : Path or None
        basf2's if None.
    log : callable
        Called with a line as each step is done.

    Raises
    ------
    ConditionsError, OutputError, ArgumentValueError
        See `fetch_payload`.
    """
    with _shown(log) as (told, progress):
        return fetch_payload(
            checkpoint_payload_name(family),
            global_tag,
            servers=servers_to_ask(servers),
            cache=cache or default_cache(),
            experiment=experiment,
            run=run,
            log=told,
            progress=progress,
        )


@contextmanager
def _shown(log: Callable[[str], None]) -> Iterator[tuple[Callable[[str], None], Progress]]:
    """Give what tells lines and what shows a bar on a terminal, such that neither writes over the other."""
    if not stderr.draws_bars:
        yield log, lambda _came, _announced: None
        return
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    # What goes to the standard output must not be led to the bar's console.
    bar = ProgressBars(*columns, console=stderr, transient=True, redirect_stdout=False, redirect_stderr=False)
    task = bar.add_task("", total=None)

    def told(line: str) -> None:
        bar.stop()
        log(line)

    def progress(came: int, announced: int | None) -> None:
        bar.start()
        bar.update(task, completed=came, total=announced)

    try:
        yield told, progress
    finally:
        bar.stop()
