"""The whole way: from a global tag to a verified file in the cache, and what to write on the model card about it."""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from export.conditions.cache import stored
from export.conditions.database import payload_entries, tag_state
from export.conditions.limits import Limits
from export.conditions.transport import opened_client, receive, retried
from export.conditions.validity import PayloadEntry, valid_entry
from export.errors import ConditionsError, ServerError
from pxdbg_runtime.errors import ArgumentValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import httpx

    from export.conditions.transport import Progress

__all__ = ["Fetched", "fetch_payload"]

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_INVALID: Final = "INVALID"
_PUBLISHED: Final = "PUBLISHED"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A payload in the cache, and where it comes from.

    Attributes
    ----------
    path : Path
        The file; its MD5 is `md5`.
    name : str
    revision : int
    md5 : str
    global_tag, tag_state : str
    experiment, run : int
        For which it was chosen.
    server : str
        That named it.
    was_cached : bool
        Whether nothing had to be downloaded.
    """

    path: Path
    name: str
    revision: int
    md5: str
    global_tag: str
    tag_state: str
    experiment: int
    run: int
    server: str
    was_cached: bool

    @property
    def provenance(self) -> str:
        """Where the weights come from, in words, for the model card."""
        return (
            f"Payload {self.name} revision {self.revision}, MD5 {self.md5}, of the global tag {self.global_tag} "
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
    progress: Progress = lambda _came, _announced: None,
) -> Fetched:
    """Find a payload in the conditions database and give its file, from the cache or downloaded.

    Parameters
    ----------
    name : str
        The payload's name.
    global_tag : str
    servers : sequence of str
        Base URLs, tried in order: the next one if one fails.
    cache : Path
        Folder of the cache, in basf2's layout.
    experiment, run : int
        The payload that holds for them is chosen.
    limits : Limits, optional
    log : callable, optional
        Called with a line as each step is done.
    progress : callable, optional
        Called during the download with the bytes that came and those that were announced.

    Returns
    -------
    Fetched

    Raises
    ------
    ConditionsError
        If the tag is not to be used, has no such payload for this run, or no server could be used.
    OutputError
        If the cache cannot be written to.
    ArgumentValueError
        If the name of the payload or the tag is none, or experiment or run are negative.
    """
    _check("name", "The payload's name", name)
    _check("global_tag", "The global tag", global_tag)
    for argument, number in (("experiment", experiment), ("run", run)):
        if number < 0:
            message = f"--{argument} must be 0 or more, but is {number}."
            raise ArgumentValueError(argument, message)
    limits = limits or Limits()
    failures: list[ServerError] = []
    with opened_client(limits) as client:
        for server in servers:
            try:
                request = _Request(client, server, limits, log, progress)
                return _fetched(request, name, global_tag, (experiment, run), cache)
            except ServerError as error:
                logger.info("the server %s failed: %s", server, error)
                failures.append(error)
    reasons = " ".join(str(error) for error in failures)
    message = f"No server of the conditions database gave {name} of the global tag {global_tag}: {reasons}"
    raise ConditionsError(message)


@dataclass(frozen=True)
class _Request:
    """What one server is asked with."""

    client: httpx.Client
    server: str
    limits: Limits
    log: Callable[[str], None]
    progress: Progress


def _fetched(request: _Request, name: str, global_tag: str, when: tuple[int, int], cache: Path) -> Fetched:
    state = tag_state(request.client, request.server, global_tag, request.limits)
    if state == _INVALID:
        message = f"The global tag {global_tag} is {state}: it must not be used any more. Choose another one."
        raise ConditionsError(message)
    entries = payload_entries(request.client, request.server, global_tag, name, when, request.limits)
    experiment, run = when
    entry = valid_entry(entries, experiment, run)
    if entry is None:
        message = (
            f"The global tag {global_tag} has no payload {name} for experiment {experiment}, run {run}: "
            "choose another tag, or a run that it covers with --experiment and --run."
        )
        raise ConditionsError(message)
    note = "" if state == _PUBLISHED else f", not {_PUBLISHED}, so it may change"
    request.log(f"global tag {global_tag} is {state}{note}: {name} revision {entry.revision}, MD5 {entry.md5}")
    path, was_cached = stored(cache, entry, lambda file: _download(request, entry, file), request.limits)
    request.log(f"found in the cache: {path}" if was_cached else f"downloaded {entry.url} to {path}")
    return Fetched(
        path=path,
        name=name,
        revision=entry.revision,
        md5=entry.md5,
        global_tag=global_tag,
        tag_state=state,
        experiment=experiment,
        run=run,
        server=request.server,
        was_cached=was_cached,
    )


def _download(request: _Request, entry: PayloadEntry, file: BinaryIO) -> None:
    def once() -> None:
        file.seek(0)
        file.truncate()
        digest = hashlib.md5(usedforsecurity=False)

        def take(piece: bytes) -> None:
            digest.update(piece)
            file.write(piece)

        limits = request.limits
        receive(request.client, entry.url, take, limits, max_bytes=limits.max_payload_bytes, progress=request.progress)
        if digest.hexdigest() != entry.md5:
            message = (
                f"{entry.url} has the MD5 {digest.hexdigest()}, but the conditions database says {entry.md5}: "
                "the file is damaged or another one."
            )
            raise ServerError(message, is_passing=True)

    retried(once, request.limits)


def _check(argument: str, subject: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        message = f"{subject} must hold letters, digits, '_', '.', '+' and '-' alone, but is {text!r}."
        raise ArgumentValueError(argument, message)
