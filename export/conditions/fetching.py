"""Fetch a payload: from a global tag to a verified file in the cache, and its provenance for the model card."""

from __future__ import annotations

import functools
import logging
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from export.conditions.limits import Limits
from export.conditions.payload_files import PayloadFiles
from export.conditions.sources import open_source
from export.conditions.transport import open_client
from export.conditions.validity import PayloadEntry, find_valid_entry
from export.errors import ConditionsError, ServerError
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import httpx

    from export.conditions.sources import Source
    from export.conditions.transport import Progress

__all__ = ["FetchedPayload", "fetch_payload"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PUBLISHED: Final = "PUBLISHED"
_OPEN: Final = "OPEN"
_USABLE: Final = ("TESTING", "VALIDATED", _PUBLISHED, "RUNNING")
"""States of the global tags that basf2 uses."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FetchedPayload:
    """The file of a payload, and its origin.

    Attributes
    ----------
    path : Path
        The file, with the MD5 of the entry.
    entry : PayloadEntry
    global_tag, tag_state : str
    experiment, run : int
        The payload is valid for them.
    source : str
        The server or sqlite file that listed the payload.
    url : str or None
        URL that the file was downloaded from; None if it was on this machine.
    """

    path: Path
    entry: PayloadEntry
    global_tag: str
    tag_state: str
    experiment: int
    run: int
    source: str
    url: str | None

    @property
    def provenance(self) -> str:
        """Origin of the weights, as a sentence for the model card."""
        entry = self.entry
        return (
            f"Payload {entry.name} revision {entry.revision}, MD5 {entry.md5}, of the global tag {self.global_tag} "
            f"({self.tag_state}) for experiment {self.experiment}, run {self.run}; conditions database {self.source}."
        )


def fetch_payload(
    name: str,
    global_tag: str,
    *,
    sources: Sequence[str],
    cache: Path,
    payload_locations: Sequence[str] = (),
    proxy: str | None = None,
    experiment: int = 0,
    run: int = 0,
    allow_open_tag: bool = False,
    limits: Limits | None = None,
    log: Callable[[str], None] = lambda _line: None,
    progress: Progress = lambda _n_received, _n_announced: None,
) -> FetchedPayload:
    """Find a payload in the conditions database, and take its file from this machine or download it.

    Parameters
    ----------
    name : str
        Name of the payload.
    global_tag : str
    sources : sequence of str
        Base URLs of servers and paths of sqlite files; each is tried if those before it fail.
    cache : Path
        Folder of the cache, in the layout of basf2.
    payload_locations : sequence of str, optional
        Folders and base URLs in which the file is looked for before the source's own.
    proxy : str, optional
        URL of a proxy for all requests.
    experiment, run : int
        The payload is valid for them.
    allow_open_tag : bool
        Whether a global tag in the state ``OPEN``, which can change at any time, is accepted.
    limits : Limits, optional
    log : callable, optional
        Called with a line after each step.
    progress : callable, optional
        Called during the download; see `export.conditions.transport.Progress`.

    Raises
    ------
    ConditionsError
        If the tag must not be used or has no such payload for this run, if all sources fail, or as `open_client` where
        a server is needed.
    OutputError
        If the cache cannot be written to.
    ArgumentValueError
        If the name of the payload or the tag has other characters than letters, digits, '_', '.', '+' and '-', or
        experiment or run are negative.
    """
    _check_name("name", "The payload's name", name)
    _check_name("global_tag", "The global tag", global_tag)
    for argument, number in (("experiment", experiment), ("run", run)):
        if number < 0:
            raise ArgumentValueError(argument, f"--{argument} must be 0 or more, but is {number}.")
    limits = limits or Limits()
    states = (*_USABLE, _OPEN) if allow_open_tag else _USABLE
    failures: list[ServerError] = []
    with ExitStack() as stack:

        @functools.cache
        def get_client() -> httpx.Client:  # what is on this machine needs none
            return stack.enter_context(open_client(limits, proxy))

        files = PayloadFiles(
            get_client=get_client, locations=tuple(payload_locations), cache=cache, limits=limits, progress=progress
        )
        for address in sources:
            try:
                source = open_source(address, get_client, limits)
                state = _fetch_usable_state(source, global_tag, states)
                entry = _find_entry(source, name, global_tag, (experiment, run))
                note = "" if state == _PUBLISHED else f", not {_PUBLISHED}, so it may change"
                log(f"global tag {global_tag} is {state}{note}: {name} revision {entry.revision}, MD5 {entry.md5}")
                path, url = files.fetch(entry, source.payload_folder)
            except ServerError as error:
                logger.info("the source %s failed: %s", address, error)
                failures.append(error)
            else:
                log(f"downloaded {url} to {path}" if url else f"found on this machine: {path}")
                return FetchedPayload(
                    path=path,
                    entry=entry,
                    global_tag=global_tag,
                    tag_state=state,
                    experiment=experiment,
                    run=run,
                    source=address,
                    url=url,
                )
    reasons = " ".join(str(error) for error in failures)
    message = f"No source of the conditions database gave {name} of the global tag {global_tag}: {reasons}"
    raise ConditionsError(message)


def _fetch_usable_state(source: Source, global_tag: str, states: Sequence[str]) -> str:
    state = source.fetch_tag_state(global_tag)
    if state in states:
        return state
    hint = "or accept it with --allow-open-tag" if state == _OPEN else "as basf2 does not use it either"
    message = f"The global tag {global_tag} is {state}: expected {', '.join(states)}. Choose another one, {hint}."
    raise ConditionsError(message)


def _find_entry(source: Source, name: str, global_tag: str, when: tuple[int, int]) -> PayloadEntry:
    experiment, run = when
    entry = find_valid_entry(source.fetch_entries(global_tag, name, when), experiment, run)
    if entry is None:
        message = (
            f"The global tag {global_tag} has no payload {name} for experiment {experiment}, run {run}: "
            "choose another tag, or a run that it covers with --experiment and --run."
        )
        raise ConditionsError(message)
    return entry


def _check_name(argument: str, subject: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        message = f"{subject} may hold only letters, digits, '_', '.', '+' and '-', but is {text!r}."
        raise ArgumentValueError(argument, message)
