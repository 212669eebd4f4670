"""Fetch the checkpoint of ``python -m export --from-conditions``, with a progress bar during the download."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as ProgressBars

from export.conditions.cache import default_cache
from export.conditions.environment import choose_sources, find_proxy, list_payload_locations
from export.conditions.fetching import FetchedPayload, fetch_payload
from pxdbg_runtime.basf2.payloads import checkpoint_payload_name
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
    sources: Sequence[str],
    cache: Path | None,
    allow_open_tag: bool,
    log: Callable[[str], None],
) -> FetchedPayload:
    """Fetch the checkpoint of a family as `fetch_payload` does; by default, sources and cache are those of basf2."""
    with _show_progress(log) as (log_line, progress):
        return fetch_payload(
            checkpoint_payload_name(family),
            global_tag,
            sources=choose_sources(sources),
            cache=cache or default_cache(),
            payload_locations=list_payload_locations(),
            proxy=find_proxy(),
            experiment=experiment,
            run=run,
            allow_open_tag=allow_open_tag,
            log=log_line,
            progress=progress,
        )


@contextmanager
def _show_progress(log: Callable[[str], None]) -> Iterator[tuple[Callable[[str], None], Progress]]:
    """Return a function that logs lines and one that updates a bar on a terminal, so that they do not overlap."""
    if not stderr.draws_bars:
        yield log, lambda _n_received, _n_announced: None
        return
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    # What goes to the standard output must not be led to the bar's console.
    bar = ProgressBars(*columns, console=stderr, transient=True, redirect_stdout=False, redirect_stderr=False)
    task = bar.add_task("", total=None)

    def log_line(line: str) -> None:
        bar.stop()
        log(line)

    def progress(n_received: int, n_announced: int | None) -> None:
        bar.start()
        bar.update(task, completed=n_received, total=n_announced)

    try:
        yield log_line, progress
    finally:
        bar.stop()
