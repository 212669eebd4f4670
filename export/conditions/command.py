"""What ``python -m export --from-conditions`` does before the export: the checkpoint, with a bar while it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from export.conditions.cache import default_cache
from export.conditions.fetching import Fetched, fetch_payload
from export.conditions.naming import checkpoint_payload_name
from export.conditions.servers import servers_to_ask
from pxdbg_runtime.command_line.console import stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["fetch_checkpoint"]


def fetch_checkpoint(
    global_tag: str,
    family: str,
    *,
    experiment: int,
    run: int,
    servers: Sequence[str],
    cache: Path | None,
    tell: Callable[[str], None],
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
    tell : callable
        Called with a line as each step is done.

    Raises
    ------
    ConditionsError, OutputError, ArgumentValueError
        See `fetch_payload`.
    """
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", visible=False)
        return fetch_payload(
            checkpoint_payload_name(family),
            global_tag,
            servers=servers_to_ask(servers),
            cache=cache or default_cache(),
            experiment=experiment,
            run=run,
            tell=tell,
            progress=lambda came, announced: bar.update(task, completed=came, total=announced, visible=True),
        )
