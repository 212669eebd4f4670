"""Fetch a payload: from a global tag to a verified file in the cache, and its provenance for the model card."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from export.conditions.cache import fetch_into_cache
from export.conditions.database import fetch_entries, fetch_tag_state
from export.conditions.limits import Limits
from export.conditions.transport import open_client, receive, retry
from export.conditions.validity import PayloadEntry, find_valid_entry
from export.errors import ConditionsError, ServerError
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import httpx

    from export.conditions.transport import Progress

__all__ = ["FetchedPayload", "fetch_payload"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_INVALID: Final = "INVALID"
_PUBLISHED: Final = "PUBLISHED"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FetchedPayload:
    """A payload in the cache, and its origin.

    Attributes
    ----------
    path : Path
        The file, with the MD5 of the entry.
    entry : PayloadEntry
    global_tag, tag_state : str
    experiment, run : int
        The payload is valid for them.
    server : str
        The server that listed the payload.
    was_cached : bool
        Whether nothing was downloaded.
    """

    path: Path
    entry: PayloadEntry
    global_tag: str
    tag_state: str
    experiment: int
    run: int
    server: str
    was_cached: bool

    @property
    def provenance(self) -> str:
        """Origin of the weights, as a sentence for the model card."""
        entry = self.entry
        return (
            f"Payload {entry.name} revision {entry.revision}, MD5 {entry.md5}, of the global tag {self.global_tag} "
            f"({self.tag_state}) for experiment {self.experiment}, run {self.run}; conditions database {self.server}."
        )


def fetch_payload(
    name: str,
    global_tag: str,
    *,
    servers: Sequence[str],
    cache: Path,
    experiment: int = 0,
    run: int = 0,
    limits: Limits | None = None,
    log: Callable[[str], None] = lambda _line: None,
    progress: Progress = lambda _n_received, _n_announced: None,
) -> FetchedPayload:
    """Find a payload in the conditions database, and take its file from the cache or download it.

    Parameters
    ----------
    name : str
        Name of the payload.
    global_tag : str
    servers : sequence of str
        Base URLs; each is tried if those before it fail.
    cache : Path
        Folder of the cache, in the layout of basf2.
    experiment, run : int
        The payload is valid for them.
    limits : Limits, optional
    log : callable, optional
        Called with a line after each step.
    progress : callable, optional
        Called during the download; see `export.conditions.transport.Progress`.

    Raises
    ------
    ConditionsError
        If the tag is invalid or has no such payload for this run, or if all servers fail.
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
    failures: list[ServerError] = []
    with open_client(limits) as client:
        for server in servers:
            try:
                request = _Request(client, server, limits, log, progress)
                return _fetch_from_server(request, name, global_tag, (experiment, run), cache)
            except ServerError as error:
                logger.info("the server %s failed: %s", server, error)
                failures.append(error)
    reasons = " ".join(str(error) for error in failures)
    message = f"No server of the conditions database gave {name} of the global tag {global_tag}: {reasons}"
    raise ConditionsError(message)


@dataclass(frozen=True)
class _Request:
    """What all requests to one server have in common."""

    client: httpx.Client
    server: str
    limits: Limits
    log: Callable[[str], None]
    progress: Progress


def _fetch_from_server(
    request: _Request, name: str, global_tag: str, when: tuple[int, int], cache: Path
) -> FetchedPayload:
    state = fetch_tag_state(request.client, request.server, global_tag, request.limits)
    if state == _INVALID:
        message = f"The global tag {global_tag} is {state}: it must not be used. Choose another one."
        raise ConditionsError(message)
    entries = fetch_entries(request.client, request.server, global_tag, name, when, request.limits)
    experiment, run = when
    entry = find_valid_entry(entries, experiment, run)
    if entry is None:
        message = (
            f"The global tag {global_tag} has no payload {name} for experiment {experiment}, run {run}: "
            "choose another tag, or a run that it covers with --experiment and --run."
        )
        raise ConditionsError(message)
    note = "" if state == _PUBLISHED else f", not {_PUBLISHED}, so it may change"
    request.log(f"global tag {global_tag} is {state}{note}: {name} revision {entry.revision}, MD5 {entry.md5}")
    path, was_cached = fetch_into_cache(cache, entry, lambda file: _download(request, entry, file), request.limits)
    request.log(f"found in the cache: {path}" if was_cached else f"downloaded {entry.url} to {path}")
    return FetchedPayload(
        path=path,
        entry=entry,
        global_tag=global_tag,
        tag_state=state,
        experiment=experiment,
        run=run,
        server=request.server,
        was_cached=was_cached,
    )


def _download(request: _Request, entry: PayloadEntry, file: BinaryIO) -> None:
    def attempt() -> None:
        file.seek(0)
        file.truncate()
        digest = hashlib.md5(usedforsecurity=False)

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        limits = request.limits
        receive(request.client, entry.url, take, limits, max_bytes=limits.max_payload_bytes, progress=request.progress)
        if digest.hexdigest() != entry.md5:
            message = (
                f"{entry.url} has the MD5 {digest.hexdigest()}, but the conditions database lists {entry.md5}: "
                "the file is damaged or another one."
            )
            raise ServerError(message, is_passing=True)

    retry(attempt, request.limits)


def _check_name(argument: str, subject: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        message = f"{subject} may hold only letters, digits, '_', '.', '+' and '-', but is {text!r}."
        raise ArgumentValueError(argument, message)
